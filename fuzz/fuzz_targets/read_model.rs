//! Any bytes read as a model: an error or a model, never a panic, a hang or memory beyond bounds.
#![no_main]

use bytes::Bytes;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = madd_prof::onnx::read_bytes(Bytes::copy_from_slice(data), None);
});
