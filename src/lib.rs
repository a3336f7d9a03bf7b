//! VM isolation primitives for Linux/KVM.
