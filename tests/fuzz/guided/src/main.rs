//! One target, named by the environment variable `FUZZ_TARGET`, under libFuzzer.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<&highwater_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names the target");
    highwater_fuzz::target(&name).expect("there is such a target")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
