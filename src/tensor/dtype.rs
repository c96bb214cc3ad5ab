//! Element types of the ONNX standard: their names, widths and wire codes.

use std::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $bits:literal;)*) => {
        /// An ONNX element type (`TensorProto.DataType`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType { $($(#[$doc])* $variant),* }

        impl DType {
            /// Every type, in wire-code order.
            pub const ALL: &'static [DType] = &[$(DType::$variant),*];
            /// The code used in ONNX files; `None` for a code this build does not know.
            pub fn from_onnx(code: i32) -> Option<DType> {
                match code { $($code => Some(DType::$variant),)* _ => None }
            }
            /// The code used in ONNX files.
            pub fn to_onnx(self) -> i32 {
                match self { $(DType::$variant => $code),* }
            }
            /// The ONNX name, lower case (`float16`).
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name),* }
            }
            /// Width of one element in bits; 0 for strings, whose width is not fixed.
            pub fn bits(self) -> usize {
                match self { $(DType::$variant => $bits),* }
            }
        }
    };
}

dtypes! {
    /// IEEE single precision.
    F32 = 1, "float32", 32;
    /// Unsigned byte.
    U8 = 2, "uint8", 8;
    /// Signed byte.
    I8 = 3, "int8", 8;
    /// Unsigned 16-bit integer.
    U16 = 4, "uint16", 16;
    /// Signed 16-bit integer.
    I16 = 5, "int16", 16;
    /// Signed 32-bit integer.
    I32 = 6, "int32", 32;
    /// Signed 64-bit integer.
    I64 = 7, "int64", 64;
    /// UTF-8 string.
    Str = 8, "string", 0;
    /// Boolean, one byte per element.
    Bool = 9, "bool", 8;
    /// IEEE half precision.
    F16 = 10, "float16", 16;
    /// IEEE double precision.
    F64 = 11, "float64", 64;
    /// Unsigned 32-bit integer.
    U32 = 12, "uint32", 32;
    /// Unsigned 64-bit integer.
    U64 = 13, "uint64", 64;
    /// Complex of two f32.
    C64 = 14, "complex64", 64;
    /// Complex of two f64.
    C128 = 15, "complex128", 128;
    /// Brain floating point.
    BF16 = 16, "bfloat16", 16;
    /// 8-bit float, 4 exponent bits, finite with one NaN.
    F8E4M3FN = 17, "float8e4m3fn", 8;
    /// 8-bit float, 4 exponent bits, no negative zero.
    F8E4M3FNUZ = 18, "float8e4m3fnuz", 8;
    /// 8-bit float, 5 exponent bits, IEEE-like.
    F8E5M2 = 19, "float8e5m2", 8;
    /// 8-bit float, 5 exponent bits, no negative zero.
    F8E5M2FNUZ = 20, "float8e5m2fnuz", 8;
    /// Packed unsigned 4-bit integer, two per byte, low nibble first.
    U4 = 21, "uint4", 4;
    /// Packed signed 4-bit integer.
    I4 = 22, "int4", 4;
    /// Packed 4-bit float.
    F4E2M1 = 23, "float4e2m1", 4;
    /// 8-bit exponent-only float (block scales).
    F8E8M0 = 24, "float8e8m0", 8;
    /// Packed unsigned 2-bit integer.
    U2 = 25, "uint2", 2;
    /// Packed signed 2-bit integer.
    I2 = 26, "int2", 2;
}

impl DType {
    /// Bytes that `n` elements occupy, packed types rounded up to whole bytes; `None` on overflow or for strings.
    pub fn bytes_of(self, n: usize) -> Option<usize> {
        match self.bits() {
            0 => None,
            bits => Some(n.checked_mul(bits)?.div_ceil(8)),
        }
    }
    /// Whether values are floating point (any width).
    pub fn is_float(self) -> bool {
        use DType::*;
        matches!(self, F32 | F64 | F16 | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0)
    }
    /// Whether it is a float narrower than `f32`: computed in `f32` and rounded at each operator's output.
    pub fn is_narrow_float(self) -> bool {
        self.is_float() && !matches!(self, DType::F32 | DType::F64)
    }
    /// Whether values are integers, packed ones included, booleans not.
    pub fn is_int(self) -> bool {
        use DType::*;
        matches!(self, U8 | I8 | U16 | I16 | I32 | I64 | U32 | U64 | U4 | I4 | U2 | I2)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_round_trip_and_are_distinct() {
        let mut names = std::collections::HashSet::new();
        for &d in DType::ALL {
            assert_eq!(DType::from_onnx(d.to_onnx()), Some(d));
            assert!(names.insert(d.name()));
        }
        assert_eq!(DType::from_onnx(0), None);
        assert_eq!(DType::U4.bytes_of(3), Some(2));
        assert_eq!(DType::F64.bytes_of(usize::MAX), None);
    }
}
