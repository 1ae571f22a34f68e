//! Kernels made for one kind of job and for the device's own architecture, by NVRTC where it is installed: table sizes,
//! lanes and element type are constants in them. Not a stable interface.

use std::ffi::{CString, c_char, c_int};

use cudarc::nvrtc::sys::{self, nvrtcResult};

use crate::error::{Error, Result};
use crate::launch::Half;

const SOURCE: &str = include_str!("../../kernels/narrows.cu");
const HEADERS: [(&str, &str); 11] = [
    ("compact.cuh", include_str!("../../kernels/compact.cuh")),
    ("csr.cuh", include_str!("../../kernels/csr.cuh")),
    ("csr_encode.cuh", include_str!("../../kernels/csr_encode.cuh")),
    ("decode.cuh", include_str!("../../kernels/decode.cuh")),
    ("decode_tables.cuh", include_str!("../../kernels/decode_tables.cuh")),
    ("element.cuh", include_str!("../../kernels/element.cuh")),
    ("encode.cuh", include_str!("../../kernels/encode.cuh")),
    ("job.cuh", include_str!("../../kernels/job.cuh")),
    ("model.cuh", include_str!("../../kernels/model.cuh")),
    ("platform.cuh", include_str!("../../kernels/platform.cuh")),
    ("quantize.cuh", include_str!("../../kernels/quantize.cuh")),
];

/// Machine code of one half of the kernels with these constants, for devices of one compute capability. None without NVRTC,
/// and where it does not know such devices.
///
/// # Errors
/// [`Error::Device`] if it refuses the kernels, with what it says.
pub fn compile(capability: (i32, i32), half: Half, constants: &str) -> Result<Option<Vec<u8>>> {
    // SAFETY: only looks whether the library can be loaded; its initialisers are NVIDIA's own.
    if !unsafe { sys::is_culib_present() } || !knows(capability) {
        return Ok(None);
    }
    let program = Program::new()?;
    let (of_constants, without) = half.macros();
    let options = [
        format!("--gpu-architecture=sm_{}{}", capability.0, capability.1),
        // As `kernels/compile.py` has them.
        "-std=c++17".to_owned(),
        "--fmad=false".to_owned(),
        format!("-D{without}"),
        format!("-D{of_constants}={constants}"),
    ];
    program.compile(&options).map(Some)
}

/// Whether NVRTC makes code for such devices.
fn knows((major, minor): (i32, i32)) -> bool {
    let mut count: c_int = 0;
    // SAFETY: the library is loaded; it writes one number.
    if unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) } != nvrtcResult::NVRTC_SUCCESS {
        return false;
    }
    let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: it writes as many numbers as it has just said.
    let result = unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) };
    result == nvrtcResult::NVRTC_SUCCESS && known.contains(&(major * 10 + minor))
}

fn checked(what: &'static str, result: nvrtcResult) -> Result<()> {
    match result {
        nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => Err(Error::Device { what, cause: format!("{other:?}") }),
    }
}

/// The kernels' sources, as NVRTC keeps them.
struct Program(sys::nvrtcProgram);

impl Program {
    fn new() -> Result<Self> {
        let text = |text: &str| CString::new(text).expect("sources have no zeros");
        let (source, name) = (text(SOURCE), text("narrows.cu"));
        let headers = HEADERS.map(|(_, header)| text(header));
        let names = HEADERS.map(|(name, _)| text(name));
        let (header_pointers, name_pointers) =
            (headers.each_ref().map(|header| header.as_ptr()), names.each_ref().map(|name| name.as_ptr()));
        let mut program = std::ptr::null_mut();
        // SAFETY: every pointer is to a string that outlives the call, which copies them; there are as many headers as names.
        let result = unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                source.as_ptr(),
                name.as_ptr(),
                HEADERS.len() as c_int,
                header_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        };
        checked("handing the kernels to NVRTC", result)?;
        Ok(Self(program))
    }

    fn compile(&self, options: &[String]) -> Result<Vec<u8>> {
        let options: Vec<CString> = options
            .iter()
            .map(|option| CString::new(option.as_str()).expect("options have no zeros"))
            .collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the program is valid; so many options, which outlive the call.
        let result = unsafe { sys::nvrtcCompileProgram(self.0, pointers.len() as c_int, pointers.as_ptr()) };
        if result == nvrtcResult::NVRTC_ERROR_COMPILATION {
            return Err(Error::Device { what: "compiling the kernels with NVRTC", cause: self.log() });
        }
        checked("compiling the kernels with NVRTC", result)?;
        let mut bytes = 0;
        // SAFETY: the program is valid and compiled; it writes one number.
        let result = unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut bytes) };
        checked("asking NVRTC for machine code", result)?;
        let mut code = vec![0_u8; bytes];
        // SAFETY: as many bytes as it has just said.
        let result = unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast()) };
        checked("asking NVRTC for machine code", result)?;
        Ok(code)
    }

    /// What the compiler said.
    fn log(&self) -> String {
        let mut bytes = 0;
        // SAFETY: the program is valid; it writes one number.
        let _ = unsafe { sys::nvrtcGetProgramLogSize(self.0, &raw mut bytes) };
        let mut log = vec![0_u8; bytes];
        // SAFETY: as many bytes as it has just said.
        let _ = unsafe { sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast()) };
        String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is valid, and not used again.
        let _ = unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}
