#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oilskin_tests::fuzz::run("vault", data));
