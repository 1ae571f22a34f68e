//! What the inference engine finds out about a model before it runs: element types, shapes, multiply-adds.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tract_onnx::pb::{ModelProto, NodeProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::{DatumType, InferenceModel, InferenceModelExt as _, TractResult};
use tract_onnx::tract_hir::infer::{Factoid, InferenceFact};
use tract_onnx::tract_hir::internal::OutletId;

use crate::constant::Dtype;
use crate::graph::{Graph, node_is_default_domain};
use crate::sizes::Resolved;
use crate::{Error, Result};

/// The largest tensor that is accepted, in elements: 4 GiB of float32.
const MAX_ELEMENTS: u64 = 1 << 30;

/// Call tract; a panic inside it becomes an error like any other.
pub(crate) fn guarded<T>(stage: &'static str, call: impl FnOnce() -> TractResult<T>) -> Result<T> {
    caught(stage, || call().map_err(|cause| Error::Engine { stage, cause: format!("{cause:#}") }))
}

/// Call an engine; a panic inside it becomes an error like any other.
pub(crate) fn caught<T>(stage: &'static str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let cause = format!("internal error of the engine: {}", text.unwrap_or("no message"));
        Err(Error::Engine { stage, cause })
    })
}

/// A model as tract reads it, with the shape and type of its tensors worked out for inputs of known shapes.
pub(crate) struct Analysed {
    pub(crate) model: InferenceModel,
    outlets: HashMap<String, OutletId>,
}

impl Analysed {
    fn fact(&self, outlet: OutletId) -> Option<Fact> {
        let fact: &InferenceFact = self.model.outlet_fact(outlet).ok()?;
        let dtype = fact.datum_type.concretize();
        let shape = guarded("shape analysis", || fact.shape.as_concrete_finite()).ok().flatten();
        Some(Fact {
            dtype: dtype.and_then(Dtype::of_engine),
            shape: shape.map(|shape| shape.to_vec()),
            known: fact.format_dt_shape(),
        })
    }

    /// Refuse a model whose tensors can't be held, before the engine tries to.
    fn check_sizes(&self) -> Result<()> {
        for (name, &outlet) in &self.outlets {
            let Ok(fact) = self.model.outlet_fact(outlet) else { continue };
            let dims = fact.shape.dims().filter_map(Factoid::concretize);
            let elements = dims.fold(1_u64, |product, dim| {
                // An open dimension counts as 1, a negative one as too large.
                product.saturating_mul(dim.to_i64().map_or(1, |dim| u64::try_from(dim).unwrap_or(u64::MAX)))
            });
            check_elements(name, elements)?;
        }
        Ok(())
    }
}

/// A model as tract reads it. Clones share the weights.
#[derive(Clone)]
pub(crate) struct Parsed {
    model: InferenceModel,
    outlets: HashMap<String, OutletId>,
}

impl Parsed {
    pub(crate) fn new(proto: &ModelProto) -> Result<Self> {
        // The shapes noted in the file may carry open dimensions, in conflict with the sizes asked for.
        let parser = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
        let mut parsed = guarded("reading the graph", || parser.parse(proto, None))?;
        if let Some(name) = parsed.unresolved_inputs.pop() {
            return Err(Error::MissingTensor { name, reader: "a nested graph".into() });
        }
        Ok(Self { model: parsed.model, outlets: parsed.outlets_by_name })
    }

    pub(crate) fn analyse(self, inputs: &[(&str, Vec<usize>)]) -> Result<Analysed> {
        let Self { mut model, outlets } = self;
        guarded("shape analysis", || {
            for (name, shape) in inputs {
                if let Some(&outlet) = outlets.get(*name) {
                    let fact: &InferenceFact = model.outlet_fact(outlet)?;
                    let dtype = fact.datum_type.concretize().unwrap_or(DatumType::F32);
                    model.set_outlet_fact(outlet, InferenceFact::dt_shape(dtype, &**shape))?;
                }
            }
            model.analyse(false)
        })?;
        let analysed = Analysed { model, outlets };
        analysed.check_sizes()?;
        Ok(analysed)
    }
}

/// What is known of a tensor.
struct Fact {
    dtype: Option<&'static Dtype>,
    shape: Option<Vec<usize>>,
    /// The same in words.
    known: String,
}

/// The shape and type of the tensors of a model, for inputs of known shapes.
pub(crate) struct Analysis {
    facts: HashMap<String, Fact>,
}

/// Works out shapes and types: by tract, or from the notes in the file where tract does not know the model's operators.
pub(crate) struct Analyst<'m> {
    proto: &'m ModelProto,
    parsed: Result<Parsed>,
}

impl<'m> Analyst<'m> {
    pub(crate) fn new(proto: &'m ModelProto) -> Self {
        Self { proto, parsed: Parsed::new(proto) }
    }

    pub(crate) fn analyse(&self, graph: &Graph<'_>, sizes: &Resolved) -> Result<Analysis> {
        let inputs = input_shapes(graph, sizes)?;
        let analysed = match &self.parsed {
            Ok(parsed) => parsed.clone().analyse(&inputs),
            // An error can't be cloned; it comes again.
            Err(_) => Parsed::new(self.proto).and_then(|parsed| parsed.analyse(&inputs)),
        };
        match analysed {
            Ok(analysed) => Ok(Analysis {
                facts: analysed
                    .outlets
                    .iter()
                    .filter_map(|(name, &outlet)| Some((name.clone(), analysed.fact(outlet)?)))
                    .collect(),
            }),
            Err(Error::Engine { .. }) if !graph.proto.value_info.is_empty() => Analysis::noted(graph, sizes),
            Err(error) => Err(error),
        }
    }
}

impl Analysis {
    /// From what the file says.
    fn noted(graph: &Graph<'_>, sizes: &Resolved) -> Result<Self> {
        let mut facts = HashMap::new();
        for initialiser in &graph.proto.initializer {
            let shape: Vec<usize> = initialiser.dims.iter().map(|&dim| dim as usize).collect();
            let dtype = Dtype::of_onnx(initialiser.data_type);
            facts.insert(initialiser.name.clone(), Fact { dtype, shape: Some(shape), known: String::new() });
        }
        let noted = graph.proto.value_info.iter().chain(&graph.proto.output);
        for info in noted.chain(graph.data_inputs()) {
            let shape = sizes.shape(info).ok();
            if let Some(shape) = &shape {
                check_elements(&info.name, product(shape))?;
            }
            let known = "its shape is not noted, and tract does not know the model".into();
            facts.insert(info.name.clone(), Fact { dtype: declared_dtype(info), shape, known });
        }
        Ok(Self { facts })
    }

    /// Shape of a tensor.
    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let fact = self.fact(name)?;
        fact.shape.clone().ok_or_else(|| Error::UnknownShape { name: name.into(), known: fact.known.clone() })
    }

    /// Element type of a tensor.
    pub(crate) fn dtype(&self, name: &str) -> Result<&'static Dtype> {
        let fact = self.fact(name)?;
        fact.dtype.ok_or_else(|| Error::UnknownShape { name: name.into(), known: fact.known.clone() })
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

    fn fact(&self, name: &str) -> Result<&Fact> {
        let unknown =
            || Error::UnknownShape { name: name.into(), known: "the engine doesn't list it".into() };
        self.facts.get(name).ok_or_else(unknown)
    }
}

/// The shapes of a model's inputs.
pub(crate) fn input_shapes<'a>(graph: &Graph<'a>, sizes: &Resolved) -> Result<Vec<(&'a str, Vec<usize>)>> {
    let shape = |input: &'a ValueInfoProto| {
        let shape = sizes.shape(input)?;
        check_elements(&input.name, product(&shape))?;
        Ok((input.name.as_str(), shape))
    };
    graph.data_inputs().map(shape).collect()
}

/// The element type declared for a tensor.
pub(crate) fn declared_dtype(info: &ValueInfoProto) -> Option<&'static Dtype> {
    match &info.r#type.as_ref()?.value {
        Some(type_proto::Value::TensorType(tensor)) => Dtype::of_onnx(tensor.elem_type),
        _ => None,
    }
}

fn check_elements(name: &str, elements: u64) -> Result<()> {
    if elements > MAX_ELEMENTS {
        return Err(Error::LimitExceeded { name: name.into(), elements, limit: MAX_ELEMENTS });
    }
    Ok(())
}

/// Product of dimensions that is within the limit.
pub(crate) fn checked_elements(name: &str, shape: &[usize]) -> Result<usize> {
    let elements = product(shape);
    check_elements(name, elements)?;
    Ok(elements as usize)
}

/// Product of dimensions.
pub(crate) fn product(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product, &dim| product.saturating_mul(dim as u64))
}
