//! Recognises what is not ONNX by its first bytes, for messages that tell what to do.

/// What a file is, when its first bytes show that it is not an ONNX model: (what it is, what to do).
pub(super) fn not_onnx(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const EXPORT: &str = "export it with torch.onnx.export(model, inputs, \"model.onnx\")";
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let at4 = |magic: &[u8]| bytes.get(4..8) == Some(magic);
    let head = &bytes[..bytes.len().min(4096)];
    let contains = |needle: &[u8]| head.windows(needle.len()).any(|w| w == needle);
    if starts(b"version https://git-lfs") {
        return Some(("a Git LFS pointer, not the model itself", "run `git lfs pull` to fetch the file it points to"));
    }
    if starts(b"PK\x03\x04") || starts(b"PK\x05\x06") {
        if contains(b"data.pkl") {
            return Some(("a PyTorch checkpoint (zip)", EXPORT));
        }
        if contains(b".npy") {
            return Some(("a NumPy .npz archive", "name the .onnx model; .npz files are inputs and outputs of `run`"));
        }
        return Some(("a zip archive", "unpack it and name the .onnx file inside"));
    }
    if starts(b"\x1f\x8b") {
        return Some(("a gzip archive", "unpack it first: gunzip, or tar -xzf"));
    }
    if starts(b"\x28\xb5\x2f\xfd") || starts(b"\xfd7zXZ\0") || starts(b"BZh") || starts(b"7z\xbc\xaf\x27\x1c") {
        return Some(("a compressed archive", "unpack it first"));
    }
    if at4(b"TFL3") {
        return Some((
            "a TensorFlow Lite model",
            "convert it: python -m tf2onnx.convert --tflite model.tflite --output model.onnx",
        ));
    }
    if at4(b"ORTM") {
        return Some(("an ONNX Runtime .ort model", "use the .onnx model it was made from"));
    }
    if starts(b"\x89HDF\r\n\x1a\n") {
        return Some((
            "an HDF5 file (Keras)",
            "convert it: python -m tf2onnx.convert --keras model.h5 --output model.onnx",
        ));
    }
    if starts(b"GGUF") {
        return Some(("a GGUF model", "export the original model to ONNX"));
    }
    if starts(b"\x93NUMPY") {
        return Some(("a NumPy array", "name the .onnx model"));
    }
    if bytes.len() > 10 && bytes[8] == b'{' && bytes[9] == b'"' && bytes[5..8] == [0, 0, 0] {
        return Some(("a safetensors file: weights without a graph", EXPORT));
    }
    if bytes.len() > 2 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]) {
        return Some(("a Python pickle (PyTorch checkpoint?)", EXPORT));
    }
    let trimmed = head.trim_ascii_start();
    let lower = trimmed.get(..trimmed.len().min(64))?.to_ascii_lowercase();
    if lower.starts_with(b"<!doctype") || lower.starts_with(b"<html") || lower.starts_with(b"<head") {
        return Some((
            "an HTML page, perhaps the page around a download",
            "download the file itself (the \"raw\" link)",
        ));
    }
    if lower.starts_with(b"<?xml") || lower.starts_with(b"<net") {
        return Some(("an XML file (OpenVINO?)", "use the .onnx model it was made from"));
    }
    if lower.starts_with(b"{") || lower.starts_with(b"[") {
        return Some(("JSON text", "models are read in the binary form: onnx.save(model, \"model.onnx\")"));
    }
    let printable = |b: &u8| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    if head.len() >= 8 && head.iter().all(printable) && std::str::from_utf8(&head[..head.len().min(512) & !3]).is_ok() {
        return Some(("text", "models are read in the binary form: onnx.save(model, \"model.onnx\")"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_formats_are_recognised_by_their_first_bytes() {
        let cases: &[(&[u8], &str)] = &[
            (b"PK\x03\x04....archive/data.pkl", "PyTorch"),
            (b"PK\x03\x04....", "zip"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
            (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
            (b"\x1c\0\0\0ORTM", ".ort"),
            (b"\x10\0\0\0\0\0\0\0{\"a\":1}", "safetensors"),
            (b"\x80\x02}q\0", "pickle"),
            (b"\n <!DOCTYPE html>", "HTML"),
            (b"{\"a\": 1}", "JSON"),
            (b"hello world, here is text", "text"),
        ];
        for (bytes, what) in cases {
            let found = not_onnx(bytes).map(|f| f.0);
            assert!(found.is_some_and(|f| f.contains(what)), "{what}: {found:?}");
        }
        assert_eq!(not_onnx(b"\x08\x08\x12\x07pytorch\x1a\x05"), None);
        assert_eq!(not_onnx(b""), None);
    }
}
