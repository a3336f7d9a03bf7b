module example.com/vmcell

go 1.19
