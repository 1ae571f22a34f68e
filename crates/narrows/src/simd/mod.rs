//! Kernels compiled once for each set of instructions, and chosen at run time.
//!
//! A kernel is plain code over blocks of fixed length, which the compiler turns into the vectors of the
//! instructions it is allowed to use: the same source is the portable path, the AVX2 one, the AVX-512 one, and
//! (built for `AArch64`, where it is always there) the NEON one. Only what a compiler does not find,
//! such as byte transposes and look-ups by permutation, is written in intrinsics, in a module of its own.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;

#[cfg(target_arch = "x86_64")]
use crate::cpu::Path;

/// `path` where the processor has its instructions, the portable one where not. What makes it safe to call a
/// function compiled for a path.
#[cfg(target_arch = "x86_64")]
pub(crate) fn usable(path: Path) -> Path {
    static USABLE: std::sync::OnceLock<[Path; Path::ALL.len()]> = std::sync::OnceLock::new();
    USABLE.get_or_init(|| Path::ALL.map(Path::or_portable))[path as usize]
}

/// How many elements lie before the first that starts a cache line; 0 if there are fewer than `block`, at
/// least a line's worth.
///
/// A vector that crosses from one line into the next is read or written in two steps: from the second-level
/// cache, reading is then four times slower. Kernels that may take an element twice start with
/// a whole block and go on from here.
#[inline(always)]
pub(crate) fn to_line<T>(elements: &[T], block: usize) -> usize {
    let before = elements.as_ptr().align_offset(64);
    if elements.len() >= block && before < block { before } else { 0 }
}

/// Defines a function that takes a [`Path`](crate::cpu::Path) and runs a kernel compiled for it: the kernel after `=`, or
/// for AVX-512 the one after `avx512`, if there is one. Kernels are `#[inline(always)]`, or have the
/// path's target features themselves.
macro_rules! for_paths {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $kernel:path
    ) => {
        $crate::simd::for_paths! {
            $(#[$meta])*
            $vis fn $name($($arg: $type),*) $(-> $result)? = $kernel, avx512 $kernel
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $kernel:path, avx512 $avx512:path
    ) => {
        $(#[$meta])*
        #[allow(unsafe_code, reason = "a function compiled for a path is called where the path is usable")]
        $vis fn $name(path: $crate::cpu::Path, $($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi2")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    $kernel($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,bmi2")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    $avx512($($arg),*)
                }
                match $crate::simd::usable(path) {
                    // SAFETY: `usable` gives this path only where the processor has these features.
                    $crate::cpu::Path::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::Path::Avx2 => return unsafe { avx2($($arg),*) },
                    _ => {}
                }
            }
            let _ = path;
            $kernel($($arg),*)
        }
    };
}
pub(crate) use for_paths;
