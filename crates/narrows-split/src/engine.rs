use std::fmt;
use std::sync::Arc;

use tract_onnx::prelude::{
    InferenceModelExt as _, IntoRunnable as _, IntoTValue as _, Tensor, TypedRunnableModel, tvec,
};

use crate::analysis::{Analysis, guarded, product};
use crate::{Error, Model, Result};

/// A model ready to run on this machine's processor, with [tract](https://github.com/sonos/tract).
///
/// It takes models with one input and one output, both float32; a batch left open is taken as 1. One engine can be
/// shared by threads: a run leaves nothing behind in it.
///
/// On one machine, the engines of a head and a tail give together the very bits that the engine of the whole model
/// gives. Between processors of different kinds the last bits may differ, as the order of their sums does.
#[derive(Clone)]
pub struct Engine {
    plan: Arc<TypedRunnableModel>,
    input: Port,
    output: Port,
}

#[derive(Clone, Debug)]
struct Port {
    name: String,
    shape: Vec<usize>,
}

impl Engine {
    /// Prepare a model for running.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the model doesn't have exactly one float32 input and one float32 output, and
    /// [`Error::UnknownShape`], [`Error::LimitExceeded`] or [`Error::Engine`] if it can't be run.
    pub fn load(model: &Model) -> Result<Self> {
        let graph = model.graph()?;
        let analysis = Analysis::new(model.proto(), &graph)?;
        let input = port(&analysis, "input", graph.inputs())?;
        let output = port(&analysis, "output", graph.proto.output.iter().map(|output| output.name.as_str()))?;
        let plan = guarded("preparing the model", || {
            let mut typed = analysis.model.into_typed()?;
            // Lower to fast kernels, without `declutter` before: that rewrites across operators (it multiplies a
            // normalisation into the weights of the convolution before it), which a cut between the two prevents,
            // and rounding would tell the halves from the whole. Every operator lowered by itself is as fast.
            typed.optimize()?;
            typed.into_runnable()
        })?;
        Ok(Self { plan, input, output })
    }

    /// Run the model once.
    ///
    /// # Errors
    /// [`Error::InputLength`] if `input` doesn't fill the input's shape, [`Error::Engine`] if the run fails.
    pub fn run(&self, input: &[f32]) -> Result<Vec<f32>> {
        let expected = product(&self.input.shape) as usize;
        if input.len() != expected {
            return Err(Error::InputLength { name: self.input.name.clone(), expected, found: input.len() });
        }
        guarded("running the model", || {
            let tensor = Tensor::from_shape(&self.input.shape, input)?;
            let outputs = self.plan.run(tvec!(tensor.into_tvalue()))?;
            let values = outputs
                .first()
                .map(|output| output.try_as_plain_ram()?.as_slice::<f32>().map(<[f32]>::to_vec));
            values.unwrap_or_else(|| Ok(Vec::new()))
        })
    }

    /// Name of the input.
    pub fn input_name(&self) -> &str {
        &self.input.name
    }

    /// Shape of the input, the batch included.
    pub fn input_shape(&self) -> &[usize] {
        &self.input.shape
    }

    /// Name of the output.
    pub fn output_name(&self) -> &str {
        &self.output.name
    }

    /// Shape of the output, the batch included.
    pub fn output_shape(&self) -> &[usize] {
        &self.output.shape
    }
}

impl fmt::Debug for Engine {
    /// Without the plan.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("input", &self.input)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

/// The only input or output of a model.
fn port<'a>(analysis: &Analysis, kind: &str, names: impl Iterator<Item = &'a str>) -> Result<Port> {
    let names: Vec<_> = names.collect();
    let &[name] = names.as_slice() else {
        let what = format!("a number of {kind}s other than 1 ({}: {})", names.len(), names.join(", "));
        return Err(Error::Unsupported { place: "engine".into(), what });
    };
    let dtype = analysis.dtype(name)?.name;
    if dtype != "float32" {
        let place = format!("engine: {kind} `{name}`");
        return Err(Error::Unsupported { place, what: format!("element type {dtype} (only float32)") });
    }
    Ok(Port { name: name.into(), shape: analysis.shape(name)? })
}
