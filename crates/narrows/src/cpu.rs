//! Which instructions to use: the best the processor has, chosen once, or what a test forces.

use std::sync::OnceLock;

/// A set of instructions that the hot loops are written for. All give the same bytes and the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Path {
    /// The scalar specification (`rans::reference`).
    Reference,
    /// The lane algorithms over plain arrays: what SIMD paths run, on any processor.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL, VBMI and VBMI2.
    Avx512,
    /// `AArch64`.
    Neon,
}

impl Path {
    /// Every path, from the plainest on.
    pub const ALL: [Self; 5] = [Self::Reference, Self::Portable, Self::Avx2, Self::Avx512, Self::Neon];

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Reference | Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("avx512vbmi2")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[allow(unreachable_patterns, reason = "which arms exist depends on the architecture")]
            _ => false,
        }
    }

    /// This path, or the portable one where the processor cannot run it.
    pub(crate) fn or_portable(self) -> Self {
        if self.is_available() { self } else { Self::Portable }
    }

    /// Its name, as the environment variable `NARROWS_PATH` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// The best available path; the one named by `NARROWS_PATH`, if it is available. Decided once.
    pub fn best() -> Self {
        static BEST: OnceLock<Path> = OnceLock::new();
        *BEST.get_or_init(|| {
            let available = || Self::ALL.into_iter().filter(|path| path.is_available());
            let forced = std::env::var("NARROWS_PATH").ok();
            let forced = forced.and_then(|name| available().find(|path| path.name() == name));
            forced.or_else(|| available().next_back()).unwrap_or(Self::Reference)
        })
    }
}

impl Default for Path {
    fn default() -> Self {
        Self::best()
    }
}
