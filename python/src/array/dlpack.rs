//! The part of the DLPack ABI that is needed to look at somebody else's tensor (`dlpack.h`, version 0.x: what
//! `__dlpack__()` without arguments gives everywhere).

use std::ffi::c_void;

/// The name of a capsule whose tensor nobody has taken yet.
pub(super) const CAPSULE: &std::ffi::CStr = c"dltensor";

/// Ordinary memory; pinned memory of CUDA and of ROCm can be read as such.
pub(super) const HOST_DEVICES: [i32; 3] = [1, 3, 11];

pub(super) const FLOAT: u8 = 2;
pub(super) const BFLOAT: u8 = 4;

/// `DLDevice`.
#[repr(C)]
pub(super) struct Device {
    pub(super) kind: i32,
    pub(super) index: i32,
}

/// `DLDataType`.
#[repr(C)]
pub(super) struct DataType {
    pub(super) code: u8,
    pub(super) bits: u8,
    pub(super) lanes: u16,
}

/// `DLTensor`; the first member of a `DLManagedTensor`.
#[repr(C)]
pub(super) struct Tensor {
    pub(super) data: *mut c_void,
    pub(super) device: Device,
    pub(super) rank: i32,
    pub(super) dtype: DataType,
    /// `rank` axis lengths.
    pub(super) shape: *const i64,
    /// `rank` strides in elements, or null for row-major.
    pub(super) strides: *const i64,
    pub(super) byte_offset: u64,
}
