#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vmcell_fuzz::app_toml::run(bytes));
