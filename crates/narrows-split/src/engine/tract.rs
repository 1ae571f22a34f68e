//! The engine in pure Rust.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::{
    DatumType, InferenceModelExt as _, IntoRunnable as _, IntoTValue as _, TValue, TVec, Tensor,
    TypedRunnableModel,
};

use super::Backend;
use crate::analysis::{Parsed, guarded, input_shapes, product};
use crate::graph::Graph;
use crate::sizes::Resolved;
use crate::value::{Data, Value};
use crate::{Error, Model, Result};

/// Plans kept ready: tract plans for one set of shapes at a time. A decoder needs a new one at every step.
const PLANS: usize = 4;

type Plan = Arc<TypedRunnableModel>;

/// A model in tract.
pub(super) struct Tract {
    parsed: Parsed,
    inputs: Vec<String>,
    /// Plans by the shapes of the inputs, the least recently used first.
    plans: Mutex<VecDeque<(Vec<Vec<usize>>, Plan)>>,
}

impl Tract {
    /// The model, and the shape of its first output for inputs of the usual sizes.
    pub(super) fn load(
        model: &Model,
        graph: &Graph<'_>,
        sizes: &Resolved,
    ) -> Result<(Self, Option<Vec<usize>>)> {
        let parsed = Parsed::new(model.proto())?;
        let shapes = input_shapes(graph, sizes);
        let tract = Self {
            parsed,
            inputs: graph.data_inputs().map(|input| input.name.clone()).collect(),
            plans: Mutex::default(),
        };
        let shapes: Vec<_> = match shapes {
            Ok(shapes) => shapes.into_iter().map(|(_, shape)| shape).collect(),
            // A half whose open dimensions have no names: the first run will tell.
            Err(Error::UnknownShape { .. }) => return Ok((tract, None)),
            Err(error) => return Err(error),
        };
        let plan = tract.plan(shapes)?;
        let output = guarded("preparing the model", || {
            let outlet = plan.model().output_outlets()?.first().copied();
            outlet
                .map(|outlet| {
                    Ok(plan.model().outlet_fact(outlet)?.shape.as_concrete().map(<[usize]>::to_vec))
                })
                .transpose()
        })?;
        Ok((tract, output.flatten()))
    }

    /// The plan for inputs of some shapes.
    fn plan(&self, shapes: Vec<Vec<usize>>) -> Result<Plan> {
        // A panic in tract is caught before it can get here, and leaves no plan half made.
        let plans = || self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = take(&mut plans(), &shapes) {
            return Ok(found);
        }
        let inputs: Vec<_> = self.inputs.iter().map(String::as_str).zip(shapes.iter().cloned()).collect();
        let analysed = self.parsed.clone().analyse(&inputs)?;
        let plan = guarded("preparing the model", || {
            let mut typed = analysed.model.into_typed()?;
            // Lower to fast kernels, without `declutter` before: that rewrites across operators (it multiplies a
            // normalisation into the weights of the convolution before it), which a cut between the two prevents,
            // and rounding would tell the halves from the whole. Every operator lowered by itself is as fast.
            typed.optimize()?;
            typed.into_runnable()
        })?;
        let mut plans = plans();
        while plans.len() >= PLANS {
            plans.pop_front();
        }
        plans.push_back((shapes, Arc::clone(&plan)));
        Ok(plan)
    }
}

/// A plan that is ready, which becomes the last to be thrown away.
fn take(plans: &mut VecDeque<(Vec<Vec<usize>>, Plan)>, shapes: &[Vec<usize>]) -> Option<Plan> {
    let found = plans.iter().position(|(known, _)| known == shapes)?;
    let entry = plans.remove(found)?;
    let plan = Arc::clone(&entry.1);
    plans.push_back(entry);
    Some(plan)
}

impl Backend for Tract {
    fn run(&self, inputs: &[&Value]) -> Result<Vec<Value>> {
        let plan = self.plan(inputs.iter().map(|value| value.shape().to_vec()).collect())?;
        guarded("running the model", || {
            let inputs = inputs.iter().map(|value| tensor(value));
            let outputs = plan.run(inputs.collect::<tract_onnx::prelude::TractResult<TVec<_>>>()?)?;
            Ok(outputs.iter().map(value).collect())
        })?
    }
}

fn tensor(value: &Value) -> tract_onnx::prelude::TractResult<TValue> {
    let shape = value.shape();
    let tensor = match value.data() {
        Data::F32(values) => Tensor::from_shape(shape, values),
        Data::I64(values) => Tensor::from_shape(shape, values),
        Data::Bool(values) => Tensor::from_shape(shape, values),
    };
    Ok(tensor?.into_tvalue())
}

fn value(tensor: &TValue) -> Result<Value> {
    let shape = tensor.shape().to_vec();
    let failed = |error: tract_onnx::prelude::TractError| Error::Engine {
        stage: "reading the result",
        cause: format!("{error:#}"),
    };
    // Shapes that tract has computed with are what a file calls int64.
    let cast = match tensor.datum_type() {
        DatumType::TDim => Some(tensor.cast_to::<i64>().map_err(failed)?.into_owned()),
        _ => None,
    };
    let tensor: &Tensor = cast.as_ref().unwrap_or(tensor);
    let plain = tensor.try_as_plain_ram().map_err(failed)?;
    let data: Data = match tensor.datum_type() {
        // tract has no slice for a tensor without elements.
        _ if product(&shape) == 0 && tensor.datum_type() == DatumType::F32 => Vec::<f32>::new().into(),
        DatumType::F32 => plain.as_slice::<f32>().map_err(failed)?.to_vec().into(),
        DatumType::I64 => plain.as_slice::<i64>().map_err(failed)?.to_vec().into(),
        DatumType::Bool => plain.as_slice::<bool>().map_err(failed)?.to_vec().into(),
        other => {
            let what = format!("an output of element type {other:?}");
            return Err(Error::Unsupported { place: "engine".into(), what });
        }
    };
    Value::new(shape, data)
}
