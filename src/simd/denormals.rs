//! Numbers too small for a normal exponent ("denormals"), taken and given as zero: many cores need a hundred cycles more for each, and
//! no result of a network rests on them.
//!
//! The mode belongs to the thread. On x86 it is FTZ and DAZ of MXCSR, on aarch64 FZ of FPCR; elsewhere nothing happens. The
//! compiler assumes the usual mode where it computes constants; such a result differs from ours only in whether a denormal is zero.

/// Flushing is as it was again when this is dropped, on the thread that made it.
#[derive(Debug)]
pub struct Mode {
    before: u64,
    /// The mode belongs to this thread.
    _here: std::marker::PhantomData<*const ()>,
}

impl Mode {
    /// Denormals are zero from here on.
    #[must_use]
    pub fn flushed() -> Mode {
        Mode::with(read() | BITS)
    }
    /// Denormals are what they are from here on.
    #[must_use]
    pub fn exact() -> Mode {
        Mode::with(read() & !BITS)
    }
    fn with(bits: u64) -> Mode {
        let before = read();
        if bits != before {
            write(bits);
        }
        Mode { before, _here: std::marker::PhantomData }
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        if read() & BITS != self.before & BITS {
            write((read() & !BITS) | (self.before & BITS));
        }
    }
}

/// Denormals are zero on this thread for the rest of its life: for threads that run nothing but kernels.
pub fn flush_for_good() {
    write(read() | BITS);
}

#[cfg(target_arch = "x86_64")]
const BITS: u64 = 0x8040;
#[cfg(target_arch = "aarch64")]
const BITS: u64 = 1 << 24;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const BITS: u64 = 0;

#[cfg(target_arch = "x86_64")]
fn read() -> u64 {
    let mut bits = 0u32;
    // SAFETY: stores the 32 bits of MXCSR where `bits` lies; SSE is part of x86-64.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut bits, options(nostack, preserves_flags)) };
    u64::from(bits)
}
#[cfg(target_arch = "x86_64")]
fn write(bits: u64) {
    let bits = bits as u32;
    // SAFETY: the value differs from what was read only in FTZ and DAZ, which mask no exception and change no rounding.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const bits, options(nostack, preserves_flags)) };
}

#[cfg(target_arch = "aarch64")]
fn read() -> u64 {
    let bits: u64;
    // SAFETY: reads a register that user code may read.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) bits, options(nomem, nostack, preserves_flags)) };
    bits
}
#[cfg(target_arch = "aarch64")]
fn write(bits: u64) {
    // SAFETY: the value differs from what was read only in FZ.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) bits, options(nomem, nostack, preserves_flags)) };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn read() -> u64 {
    0
}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn write(_bits: u64) {}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;
    use std::hint::black_box;

    fn half_of_the_smallest() -> f32 {
        black_box(f32::MIN_POSITIVE) * black_box(0.5)
    }

    #[test]
    fn denormals_are_zero_only_while_asked_for() {
        assert!(half_of_the_smallest() > 0.0);
        {
            let _on = Mode::flushed();
            assert_eq!(half_of_the_smallest().to_bits(), 0);
            {
                let _exact = Mode::exact();
                assert!(half_of_the_smallest() > 0.0);
            }
            assert_eq!(half_of_the_smallest().to_bits(), 0);
            let other = std::thread::spawn(half_of_the_smallest).join().unwrap();
            assert!(other >= 0.0);
        }
        assert!(half_of_the_smallest() > 0.0);
        let for_good = std::thread::spawn(|| {
            flush_for_good();
            half_of_the_smallest()
        });
        assert_eq!(for_good.join().unwrap().to_bits(), 0);
        assert!(half_of_the_smallest() > 0.0);
    }
}
