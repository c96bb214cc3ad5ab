//! Floats narrower than `f32`: decoding to `f32`, and encoding with round-to-nearest-even.
//!
//! Half and bfloat16 come from the `half` crate. The 8- and 4-bit formats are those of the ONNX "Float stored in 8 bits"
//! and "4 bit" pages: sign, exponent, mantissa; FN = no infinities, UZ = no negative zero (its code is the only NaN).

use super::DType;

/// A small binary floating-point format.
#[derive(Clone, Copy)]
struct Mini {
    exp_bits: u32,
    man_bits: u32,
    bias: i32,
    /// Largest finite magnitude.
    max: f32,
    /// Has infinities (E5M2).
    inf: bool,
    /// Negative zero's code is NaN (…UZ formats).
    uz: bool,
    /// Has a NaN at all (F4E2M1 has none).
    nan: bool,
}

fn mini(dtype: DType) -> Mini {
    let f = |exp_bits, man_bits, bias, max, inf, uz, nan| Mini { exp_bits, man_bits, bias, max, inf, uz, nan };
    match dtype {
        DType::F8E4M3FN => f(4, 3, 7, 448.0, false, false, true),
        DType::F8E4M3FNUZ => f(4, 3, 8, 240.0, false, true, true),
        DType::F8E5M2 => f(5, 2, 15, 57344.0, true, false, true),
        DType::F8E5M2FNUZ => f(5, 2, 16, 57344.0, false, true, true),
        _ => f(2, 1, 1, 6.0, false, false, false), // F4E2M1
    }
}

impl Mini {
    fn bits(self) -> u32 {
        1 + self.exp_bits + self.man_bits
    }
    fn decode(self, code: u8) -> f32 {
        let code = u32::from(code) & ((1 << self.bits()) - 1);
        let sign_bit = 1 << (self.exp_bits + self.man_bits);
        let sign = if code & sign_bit != 0 { -1.0 } else { 1.0 };
        if self.uz && code == sign_bit {
            return f32::NAN;
        }
        let exp = (code >> self.man_bits) & ((1 << self.exp_bits) - 1);
        let man = code & ((1 << self.man_bits) - 1);
        let top = (1 << self.exp_bits) - 1;
        if exp == top && self.nan && !self.uz {
            if self.inf {
                return if man == 0 { sign * f32::INFINITY } else { f32::NAN };
            }
            if man == (1 << self.man_bits) - 1 {
                return f32::NAN;
            }
        }
        let scale = 2f32.powi(exp.max(1) as i32 - self.bias - self.man_bits as i32);
        let whole = if exp == 0 { man } else { man | 1 << self.man_bits };
        sign * whole as f32 * scale
    }
    fn encode(self, v: f32, saturate: bool) -> u8 {
        let sign_bit = 1u32 << (self.exp_bits + self.man_bits);
        let nan_code = if self.uz {
            sign_bit
        } else {
            sign_bit - 1 // all exponent and mantissa ones; for E5M2 that is a NaN too
        };
        let sign = if v.is_sign_negative() { sign_bit } else { 0 };
        if v.is_nan() {
            return if self.nan { (if self.uz { nan_code } else { sign | nan_code }) as u8 } else { 0 };
        }
        let max_code = {
            let top_exp = (1u32 << self.exp_bits) - 1;
            let top_man = (1u32 << self.man_bits) - 1;
            if self.inf {
                (top_exp - 1) << self.man_bits | top_man
            } else if self.uz || !self.nan {
                top_exp << self.man_bits | top_man
            } else {
                top_exp << self.man_bits | (top_man - 1)
            }
        };
        let overflow = |sign: u32| -> u8 {
            (if saturate || !self.nan {
                sign | max_code
            } else if self.inf {
                sign | ((1 << self.exp_bits) - 1) << self.man_bits
            } else if self.uz {
                nan_code
            } else {
                sign | nan_code
            }) as u8
        };
        let a = v.abs();
        if a.is_infinite() {
            return overflow(sign);
        }
        if a == 0.0 {
            return if self.uz { 0 } else { sign as u8 };
        }
        // The unit in the last place at this magnitude; below the normal range it is the subnormal step.
        let exp = ((a.to_bits() >> 23) as i32 - 127).max(1 - self.bias);
        let ulp = 2f64.powi(exp - self.man_bits as i32);
        let units = (f64::from(a) / ulp).round_ties_even();
        let rounded = units * ulp;
        if rounded > f64::from(self.max) {
            return overflow(sign);
        }
        if units == 0.0 {
            return if self.uz { 0 } else { sign as u8 };
        }
        let (mut exp, mut units) = (exp, units as u32);
        if units >> (self.man_bits + 1) != 0 {
            units >>= 1;
            exp += 1;
        }
        let code = if units >> self.man_bits == 0 {
            units // subnormal
        } else {
            ((exp + self.bias) as u32) << self.man_bits | (units & ((1 << self.man_bits) - 1))
        };
        (sign | code) as u8
    }
}

/// Decodes `n` values of a narrow float type.
pub(super) fn to_f32s(dtype: DType, bytes: &[u8], n: usize) -> Vec<f32> {
    let halves = || bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match dtype {
        DType::F16 => halves().map(|b| half::f16::from_bits(b).to_f32()).collect(),
        DType::BF16 => halves().map(|b| half::bf16::from_bits(b).to_f32()).collect(),
        DType::F8E8M0 => {
            // An exponent alone: 2^(code − 127), 255 is NaN.
            bytes.iter().map(|&b| if b == 255 { f32::NAN } else { 2f64.powi(i32::from(b) - 127) as f32 }).collect()
        }
        DType::F4E2M1 => {
            let m = mini(dtype);
            (0..n).map(|i| m.decode(bytes[i / 2] >> (i % 2 * 4) & 15)).collect()
        }
        _ => {
            let m = mini(dtype);
            bytes.iter().map(|&b| m.decode(b)).collect()
        }
    }
}

/// Encodes to a narrow float type, little-endian, packed.
pub(super) fn from_f32s(dtype: DType, values: &[f32], saturate: bool) -> Vec<u8> {
    match dtype {
        DType::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        DType::F8E8M0 => values
            .iter()
            .map(
                |&v| if v.is_nan() { 255 } else { (f64::from(v.abs()).log2().round() + 127.0).clamp(0.0, 254.0) as u8 },
            )
            .collect(),
        DType::F4E2M1 => {
            let m = mini(dtype);
            let mut out = vec![0u8; values.len().div_ceil(2)];
            for (i, &v) in values.iter().enumerate() {
                out[i / 2] |= m.encode(v, true) << (i % 2 * 4);
            }
            out
        }
        _ => {
            let m = mini(dtype);
            values.iter().map(|&v| m.encode(v, saturate)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        use DType::*;
        for d in [F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ] {
            for code in 0..=255u8 {
                let v = to_f32s(d, &[code], 1)[0];
                let back = from_f32s(d, &[v], false)[0];
                let again = to_f32s(d, &[back], 1)[0];
                assert!(again == v || (v.is_nan() && again.is_nan()), "{d} {code:#x} -> {v} -> {back:#x}");
                if !v.is_nan() {
                    assert_eq!(back, code, "{d} {v}");
                }
            }
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(to_f32s(DType::F8E4M3FN, &[0x7e], 1)[0], 448.0);
        assert_eq!(to_f32s(DType::F8E5M2, &[0x7b], 1)[0], 57344.0);
        assert_eq!(to_f32s(DType::F8E4M3FNUZ, &[0x7f], 1)[0], 240.0);
        assert_eq!(to_f32s(DType::F4E2M1, &[0x75], 2), [3.0, 6.0]);
        assert_eq!(from_f32s(DType::F8E4M3FN, &[1e9], true)[0], 0x7e);
        assert_eq!(from_f32s(DType::F8E4M3FN, &[1e9], false)[0], 0x7f);
        // halfway between 1.0 and 1.125 rounds to even
        assert_eq!(to_f32s(DType::F8E4M3FN, &from_f32s(DType::F8E4M3FN, &[1.0625], true), 1)[0], 1.0);
    }
}
