//! Element types, and how many bytes a constant stored in a model takes.

use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::prelude::DatumType;

use crate::{Error, Result};

/// An element type under its three names: in the file, in the engine, for people.
pub(crate) struct Dtype {
    pub(crate) onnx: DataType,
    pub(crate) engine: DatumType,
    pub(crate) name: &'static str,
    /// 0 for strings, whose size varies.
    bytes: u64,
}

/// The element types that the engine knows.
const DTYPES: [Dtype; 13] = [
    Dtype { onnx: DataType::Float, engine: DatumType::F32, name: "float32", bytes: 4 },
    Dtype { onnx: DataType::Float16, engine: DatumType::F16, name: "float16", bytes: 2 },
    Dtype { onnx: DataType::Double, engine: DatumType::F64, name: "float64", bytes: 8 },
    Dtype { onnx: DataType::Int8, engine: DatumType::I8, name: "int8", bytes: 1 },
    Dtype { onnx: DataType::Int16, engine: DatumType::I16, name: "int16", bytes: 2 },
    Dtype { onnx: DataType::Int32, engine: DatumType::I32, name: "int32", bytes: 4 },
    Dtype { onnx: DataType::Int64, engine: DatumType::I64, name: "int64", bytes: 8 },
    Dtype { onnx: DataType::Uint8, engine: DatumType::U8, name: "uint8", bytes: 1 },
    Dtype { onnx: DataType::Uint16, engine: DatumType::U16, name: "uint16", bytes: 2 },
    Dtype { onnx: DataType::Uint32, engine: DatumType::U32, name: "uint32", bytes: 4 },
    Dtype { onnx: DataType::Uint64, engine: DatumType::U64, name: "uint64", bytes: 8 },
    Dtype { onnx: DataType::Bool, engine: DatumType::Bool, name: "bool", bytes: 1 },
    Dtype { onnx: DataType::String, engine: DatumType::String, name: "string", bytes: 0 },
];

impl Dtype {
    pub(crate) fn is_float(&self) -> bool {
        matches!(self.onnx, DataType::Float | DataType::Float16 | DataType::Double)
    }

    /// Bytes of one element; 0 for strings.
    pub(crate) fn element_bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn of_onnx(code: i32) -> Option<&'static Self> {
        let code = DataType::try_from(code).ok()?;
        DTYPES.iter().find(|dtype| dtype.onnx == code)
    }

    /// The engine computes with shapes in a type of its own, which a file calls int64.
    pub(crate) fn of_engine(engine: DatumType) -> Option<&'static Self> {
        let engine = if engine == DatumType::TDim { DatumType::I64 } else { engine };
        DTYPES.iter().find(|dtype| dtype.engine == engine)
    }
}

/// Bytes of a constant whose stored data fill its shape exactly.
pub(crate) fn constant_bytes(tensor: &TensorProto, name: &str) -> Result<u64> {
    let unsupported = |what: String| Error::Unsupported { place: format!("constant `{name}`"), what };
    if tensor.data_location == Some(DataLocation::External as i32) {
        return Err(unsupported("data in a separate file".into()));
    }
    let dtype = Dtype::of_onnx(tensor.data_type)
        .ok_or_else(|| unsupported(format!("element type {}", tensor.data_type)))?;
    let expected = elements(&tensor.dims).ok_or_else(|| Error::Invalid {
        place: format!("constant `{name}`"),
        rule: format!(
            "dimensions must be non-negative with a product below 2^63, they are {:?}",
            tensor.dims
        ),
    })?;
    let raw = tensor.raw_data.len() as u64;
    let found = match dtype.onnx {
        DataType::String => tensor.string_data.len() as u64,
        // A broken last element counts as missing if there are too few, as one more if there are too many.
        _ if raw > expected.saturating_mul(dtype.bytes) => raw.div_ceil(dtype.bytes),
        _ if raw > 0 => raw / dtype.bytes,
        _ => typed_elements(tensor, dtype.onnx),
    };
    if found != expected {
        return Err(Error::ConstantSize { name: name.into(), expected, found });
    }
    Ok(match dtype.onnx {
        DataType::String => tensor.string_data.iter().map(|text| text.len() as u64).sum(),
        _ => expected.saturating_mul(dtype.bytes),
    })
}

/// Product of the dimensions, if they are non-negative and it fits an `i64`.
fn elements(dims: &[i64]) -> Option<u64> {
    let product =
        dims.iter().try_fold(1_i64, |product, &dim| if dim < 0 { None } else { product.checked_mul(dim) })?;
    u64::try_from(product).ok()
}

/// Elements stored in the field that ONNX assigns to the type.
fn typed_elements(tensor: &TensorProto, dtype: DataType) -> u64 {
    let length = match dtype {
        DataType::Float => tensor.float_data.len(),
        DataType::Double => tensor.double_data.len(),
        DataType::Int64 => tensor.int64_data.len(),
        DataType::Uint32 | DataType::Uint64 => tensor.uint64_data.len(),
        _ => tensor.int32_data.len(),
    };
    length as u64
}
