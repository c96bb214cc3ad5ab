//! Any bytes read as a NumPy archive, and as a single array.
#![no_main]

use std::io::Cursor;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = madd_prof::tensor::npz::read_from(Cursor::new(data));
    let _ = madd_prof::tensor::npz::read_npy(&mut Cursor::new(data));
});
