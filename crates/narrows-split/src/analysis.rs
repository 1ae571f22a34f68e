//! What the inference engine finds out about a model before it runs: element types, shapes, multiply-adds.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tract_onnx::pb::{ModelProto, NodeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto};
use tract_onnx::prelude::{DatumType, InferenceModel, InferenceModelExt as _, TractResult};
use tract_onnx::tract_hir::infer::{Factoid, InferenceFact};
use tract_onnx::tract_hir::internal::OutletId;

use crate::constant::Dtype;
use crate::graph::{Graph, node_is_default_domain};
use crate::{Error, Result};

/// The largest tensor that is accepted, in elements: 4 GiB of float32.
const MAX_ELEMENTS: u64 = 1 << 30;

/// Call the engine; a panic inside it becomes an error like any other.
pub(crate) fn guarded<T>(stage: &'static str, call: impl FnOnce() -> TractResult<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(cause)) => Err(Error::Engine { stage, cause: format!("{cause:#}") }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let cause = format!("internal error of the engine: {}", text.unwrap_or("no message"));
            Err(Error::Engine { stage, cause })
        }
    }
}

/// A model with the shape and type of its tensors worked out, for a batch of one.
pub(crate) struct Analysis {
    pub(crate) model: InferenceModel,
    outlets: HashMap<String, OutletId>,
}

impl Analysis {
    pub(crate) fn new(proto: &ModelProto, graph: &Graph<'_>) -> Result<Self> {
        let shapes =
            graph.proto.input.iter().filter(|input| !graph.is_constant(&input.name)).map(input_shape);
        let inputs =
            graph.inputs().zip(shapes).map(|(name, shape)| Ok((name, shape?))).collect::<Result<Vec<_>>>()?;
        // The shapes noted in the file may carry an open batch dimension, in conflict with a batch of one.
        let parser = tract_onnx::onnx().with_ignore_value_info(true);
        let mut parsed = guarded("reading the graph", || parser.parse(proto, None))?;
        if let Some(name) = parsed.unresolved_inputs.pop() {
            return Err(Error::MissingTensor { name, reader: "a nested graph".into() });
        }
        guarded("shape analysis", || {
            for (name, shape) in inputs {
                if let Some(&outlet) = parsed.outlets_by_name.get(name) {
                    let fact: &InferenceFact = parsed.model.outlet_fact(outlet)?;
                    let dtype = fact.datum_type.concretize().unwrap_or(DatumType::F32);
                    parsed.model.set_outlet_fact(outlet, InferenceFact::dt_shape(dtype, &*shape))?;
                }
            }
            parsed.model.analyse(false)
        })?;
        let analysis = Self { model: parsed.model, outlets: parsed.outlets_by_name };
        for name in analysis.outlets.keys() {
            analysis.check_size(name)?;
        }
        Ok(analysis)
    }

    /// Shape of a tensor.
    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let fact = self.fact(name)?;
        let shape = guarded("shape analysis", || fact.shape.as_concrete_finite())?;
        match shape {
            Some(shape) => Ok(shape.to_vec()),
            None => Err(Error::UnknownShape { name: name.into(), known: fact.format_dt_shape() }),
        }
    }

    /// Element type of a tensor.
    pub(crate) fn dtype(&self, name: &str) -> Result<&'static Dtype> {
        let fact = self.fact(name)?;
        let known = || fact.format_dt_shape();
        let dtype = fact.datum_type.concretize();
        let dtype = dtype.ok_or_else(|| Error::UnknownShape { name: name.into(), known: known() })?;
        Dtype::of_engine(dtype).ok_or_else(|| Error::Unsupported {
            place: format!("`{name}`"),
            what: format!("element type {dtype:?}"),
        })
    }

    /// Multiply-adds of a node: those of convolutions and matrix products, and 0 for every other operator.
    pub(crate) fn macs(&self, node: &NodeProto) -> Result<u64> {
        if !node_is_default_domain(node) {
            return Ok(0);
        }
        let input = |position: usize| self.shape(node.input.get(position).map_or("", String::as_str));
        let output = || self.shape(node.output.first().map_or("", String::as_str));
        // A weight is [outputs, inputs / groups, kernel...], or [inputs, outputs / groups, kernel...] if transposed:
        // beyond its first dimension it counts the products behind one output, or those one input goes into.
        let per_element = |weight: Vec<usize>| product(weight.get(1..).unwrap_or(&[]));
        Ok(match node.op_type.as_str() {
            "Conv" | "ConvInteger" => product(&output()?).saturating_mul(per_element(input(1)?)),
            "QLinearConv" => product(&output()?).saturating_mul(per_element(input(3)?)),
            "ConvTranspose" => product(&input(0)?).saturating_mul(per_element(input(1)?)),
            "MatMul" | "MatMulInteger" | "QLinearMatMul" => {
                product(&output()?).saturating_mul(input(0)?.last().copied().unwrap_or(1) as u64)
            }
            "Gemm" => {
                let transposed =
                    node.attribute.iter().any(|attribute| attribute.name == "transA" && attribute.i != 0);
                let inner = input(0)?.get(usize::from(!transposed)).copied().unwrap_or(1);
                product(&output()?).saturating_mul(inner as u64)
            }
            _ => 0,
        })
    }

    fn fact(&self, name: &str) -> Result<&InferenceFact> {
        let unknown =
            || Error::UnknownShape { name: name.into(), known: "the engine doesn't list it".into() };
        let &outlet = self.outlets.get(name).ok_or_else(unknown)?;
        self.model.outlet_fact(outlet).map_err(|_| unknown())
    }

    /// Refuse a model whose tensors can't be held, before the engine tries to.
    fn check_size(&self, name: &str) -> Result<()> {
        let dims = self.fact(name)?.shape.dims().filter_map(Factoid::concretize);
        let elements = dims.fold(1_u64, |product, dim| {
            // An open dimension counts as 1, a negative one as too large.
            product.saturating_mul(dim.to_i64().map_or(1, |dim| u64::try_from(dim).unwrap_or(u64::MAX)))
        });
        if elements > MAX_ELEMENTS {
            return Err(Error::LimitExceeded { name: name.into(), elements, limit: MAX_ELEMENTS });
        }
        Ok(())
    }
}

/// Product of dimensions.
pub(crate) fn product(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product, &dim| product.saturating_mul(dim as u64))
}

/// Shape of an input with its first dimension, the batch, taken as 1 where it is open.
fn input_shape(input: &ValueInfoProto) -> Result<Vec<usize>> {
    use tensor_shape_proto::dimension::Value;
    let name = &input.name;
    let unknown = |known: String| Error::UnknownShape { name: name.clone(), known };
    let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &input.r#type else {
        return Err(Error::Unsupported {
            place: format!("input `{name}`"),
            what: "a type other than tensor".into(),
        });
    };
    let dims = tensor.shape.as_ref().ok_or_else(|| unknown("the input has no shape".into()))?;
    let dims = dims.dim.iter().enumerate().map(|(axis, dim)| match &dim.value {
        Some(Value::DimValue(dim)) if *dim >= 0 => Ok(*dim as usize),
        _ if axis == 0 => Ok(1),
        Some(Value::DimValue(dim)) => Err(unknown(format!("dimension {axis} is {dim}"))),
        Some(Value::DimParam(symbol)) => Err(unknown(format!("dimension {axis} is `{symbol}`"))),
        None => Err(unknown(format!("dimension {axis} is open"))),
    });
    let shape = dims.collect::<Result<Vec<_>>>()?;
    let elements = product(&shape);
    if elements > MAX_ELEMENTS {
        return Err(Error::LimitExceeded { name: name.clone(), elements, limit: MAX_ELEMENTS });
    }
    Ok(shape)
}
