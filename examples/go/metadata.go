package vmcell

/*
#include <vmcell.h>
*/
import "C"

// Metadata is a metadata service for guests: a JSON document that a guest reads over HTTP at a link-local address, as at a cloud's.
// docs/metadata.md says what it answers. Several interfaces may have it. Any goroutine may use it.
type Metadata struct{ handle *C.vmcell_metadata }

// MetadataOptions are settings of a metadata service.
type MetadataOptions struct {
	// Address is one from 169.254.1.0 to 169.254.254.255; 169.254.169.254 if it is empty.
	Address string
	// Limit is how many bytes the document may have as JSON without white space; 51,200 if it is 0.
	Limit uint
	// WithoutToken answers guests that have no token. A program in the guest that forwards requests for others is then all it takes to
	// read the document.
	WithoutToken bool
	// AlwaysText answers by text whatever a request accepts. Otherwise one that accepts application/json is answered by JSON.
	AlwaysText bool
}

// NewMetadata makes a service with an empty object as its document.
func NewMetadata(options MetadataOptions) (*Metadata, error) {
	metadata := &Metadata{}
	d := &describer{}
	d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_metadata_new(&metadata.handle, e) })
	if options.Address != "" {
		d.withText(options.Address, func(t *C.char, e **C.vmcell_error) C.int32_t {
			return C.vmcell_metadata_set_address(metadata.handle, t, e)
		})
	}
	if options.Limit != 0 {
		d.do(func(e **C.vmcell_error) C.int32_t {
			return C.vmcell_metadata_set_limit(metadata.handle, C.size_t(options.Limit), e)
		})
	}
	if options.WithoutToken {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_metadata_set_needs_token(metadata.handle, 0, e) })
	}
	if options.AlwaysText {
		d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_metadata_set_always_text(metadata.handle, 1, e) })
	}
	if d.err != nil {
		metadata.Close()
		return nil, d.err
	}
	return metadata, nil
}

// Set replaces the document by this JSON.
func (metadata *Metadata) Set(json string) error {
	return metadata.withJSON(json, func(t *C.char, length C.size_t, e **C.vmcell_error) C.int32_t {
		return C.vmcell_metadata_set(metadata.handle, t, length, e)
	})
}

// Patch changes the document by a JSON merge patch (RFC 7396).
func (metadata *Metadata) Patch(json string) error {
	return metadata.withJSON(json, func(t *C.char, length C.size_t, e **C.vmcell_error) C.int32_t {
		return C.vmcell_metadata_patch(metadata.handle, t, length, e)
	})
}

func (metadata *Metadata) withJSON(json string, call func(t *C.char, length C.size_t, e **C.vmcell_error) C.int32_t) error {
	d := &describer{}
	d.withText(json, func(t *C.char, e **C.vmcell_error) C.int32_t { return call(t, C.size_t(len(json)), e) })
	return d.err
}

// JSON gives the document, without white space.
func (metadata *Metadata) JSON() (string, error) {
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_metadata_get(metadata.handle, buffer, capacity, length, &e), e)
	})
	return string(text), err
}

// Close lets go of the service, which goes on for as long as a VM has it. A second call gives an error and does no harm.
func (metadata *Metadata) Close() error {
	return failure(C.vmcell_metadata_free(metadata.handle), nil)
}
