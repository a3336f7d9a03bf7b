module vmcell.dev/go

go 1.19
