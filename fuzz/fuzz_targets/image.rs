#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vmcell_fuzz::images::run(bytes));
