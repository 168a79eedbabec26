#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entrenar_hostile::sheet(bytes));
