//! Running models: one handle, [`Engine`], over what implements [`Backend`].

#[cfg(feature = "onnxruntime")]
mod onnxruntime;
mod tract;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::analysis::{declared_dtype, product};
use crate::constant::Dtype;
use crate::sizes::{Dim, Sizes, dims, symbols};
use crate::value::{Data, ElementType, Value};
use crate::{Error, Model, Result};

/// What runs a model that has been loaded into it.
///
/// [`Engine`] calls it with inputs that have been checked, in the order of the model's inputs.
pub trait Backend: Send + Sync {
    /// Run the model once. Outputs come in the order of the model's outputs.
    ///
    /// # Errors
    /// [`Error::Engine`] if the run fails, [`Error::Unsupported`] for an output of another element type.
    fn run(&self, inputs: &[&Value]) -> Result<Vec<Value>>;
}

/// How far ONNX Runtime may rewrite a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Optimisation {
    /// Rewrites that keep every bit: head and tail give together the bits of the whole. This is ONNX Runtime's level of that
    /// name but for two rewrites.
    #[default]
    Basic,
    /// Every rewrite, fused kernels included: faster, and sums come out in another order. Head and tail are within 1e-4 of
    /// the whole, relative to its largest output.
    All,
}

/// Which software runs a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// [tract](https://github.com/sonos/tract), which is always there.
    #[default]
    Tract,
    /// [ONNX Runtime](https://onnxruntime.ai), if this build has the feature `onnxruntime` and this machine the library: the
    /// file that `ORT_DYLIB_PATH` names, or the one in an installed Python package `onnxruntime`.
    OnnxRuntime(Optimisation),
}

impl Runtime {
    /// All of them by name.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("tract", Self::Tract),
        ("onnxruntime", Self::OnnxRuntime(Optimisation::Basic)),
        ("onnxruntime-all", Self::OnnxRuntime(Optimisation::All)),
    ];

    /// Its name, such as `onnxruntime`.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, runtime)| *runtime == self).map_or("tract", |(name, _)| name)
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Runtime {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, runtime)| *runtime);
        found.ok_or_else(|| {
            let known: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            Error::Unsupported {
                place: format!("engine `{name}`"),
                what: format!("any other than {}", known.join(", ")),
            }
        })
    }
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type of the tensors that go through it.
    pub element_type: ElementType,
    /// Dimensions of an input. Of an output they are what the file declares, and empty if it declares none.
    pub dims: Vec<Dim>,
}

/// A model ready to run on this machine's processor.
///
/// Inputs and outputs may be `float32`, `int64` and `bool`, and any number; open dimensions take any size. One engine can
/// be shared by threads: a run leaves nothing behind in it.
///
/// On one machine and with one [`Runtime`], the engines of a head and a tail give together what the engine of the whole
/// model gives: bit for bit with ONNX Runtime at [`Optimisation::Basic`], and within 1e-4 of the largest output else
/// (with tract, too, every bit was the same wherever it was checked: docs/models.md). Between processors of different kinds the last bits may
/// differ, as the order of their sums does.
#[derive(Clone)]
pub struct Engine {
    backend: Arc<dyn Backend>,
    runtime: Runtime,
    inputs: Arc<[Port]>,
    outputs: Arc<[Port]>,
    input_shape: Vec<usize>,
    output_shape: Vec<usize>,
}

impl Engine {
    /// Prepare a model for running with tract.
    ///
    /// # Errors
    /// As [`Engine::load_on`].
    pub fn load(model: &Model) -> Result<Self> {
        Self::load_on(model, Runtime::Tract)
    }

    /// Prepare a model for running.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if an input or output has another type, [`Error::UnknownShape`],
    /// [`Error::LimitExceeded`] or [`Error::Engine`] if the model can't be run, and [`Error::EngineMissing`] if the
    /// runtime isn't there.
    pub fn load_on(model: &Model, runtime: Runtime) -> Result<Self> {
        let graph = model.graph()?;
        let (inputs, outputs): (Arc<[Port]>, Arc<[Port]>) = (inputs(model)?.into(), outputs(model)?.into());
        let sizes = Sizes::default().resolve(&graph)?;
        let shape = |port: Option<&Port>| {
            let dims = port.iter().flat_map(|port| port.dims.iter().enumerate());
            dims.map(|(axis, dim)| sizes.size(dim, axis).unwrap_or(1)).collect::<Vec<_>>()
        };
        let input_shape = shape(inputs.first());
        let (backend, output_shape): (Arc<dyn Backend>, _) = match runtime {
            Runtime::Tract => {
                let (backend, output_shape) = tract::Tract::load(model, &graph, &sizes)?;
                (Arc::new(backend), output_shape)
            }
            #[cfg(feature = "onnxruntime")]
            Runtime::OnnxRuntime(optimisation) => {
                let names = |ports: &[Port]| ports.iter().map(|port| port.name.clone()).collect();
                let backend =
                    onnxruntime::OnnxRuntime::load(model, optimisation, names(&inputs), names(&outputs))?;
                (Arc::new(backend), None)
            }
            #[cfg(not(feature = "onnxruntime"))]
            Runtime::OnnxRuntime(_) => {
                let cause = "this build lacks it; build with the feature `onnxruntime`".into();
                return Err(Error::EngineMissing { engine: "ONNX Runtime", cause });
            }
        };
        let output_shape = output_shape.unwrap_or_else(|| shape(outputs.first()));
        Ok(Self { backend, runtime, inputs, outputs, input_shape, output_shape })
    }

    /// Run the model once, with a tensor for each of its [`inputs`](Self::inputs), in their order.
    ///
    /// # Errors
    /// [`Error::InputNames`] for too few or too many tensors, [`Error::InputMismatch`] for one of another type or shape,
    /// else as [`Backend::run`].
    pub fn infer(&self, inputs: &[&Value]) -> Result<Vec<Value>> {
        if inputs.len() != self.inputs.len() {
            let found = vec![format!("{} tensors", inputs.len())];
            return Err(Error::InputNames { expected: names(&self.inputs), found });
        }
        let mut sizes = HashMap::new();
        for (port, value) in self.inputs.iter().zip(inputs) {
            check(port, value, &mut sizes)?;
        }
        let outputs = self.backend.run(inputs)?;
        if outputs.len() != self.outputs.len() {
            let cause = format!("{} outputs instead of {}", outputs.len(), self.outputs.len());
            return Err(Error::Engine { stage: "running the model", cause });
        }
        Ok(outputs)
    }

    /// Run a model of one `float32` input and one `float32` output, with its open dimensions, if it has any, at their
    /// default [`Sizes`].
    ///
    /// # Errors
    /// As [`Engine::check_plain`], [`Error::InputLength`] if `input` doesn't fill the input's shape, else as
    /// [`Engine::infer`].
    pub fn run(&self, input: &[f32]) -> Result<Vec<f32>> {
        self.check_plain()?;
        let expected = product(&self.input_shape) as usize;
        if input.len() != expected {
            return Err(Error::InputLength { name: self.input_name().into(), expected, found: input.len() });
        }
        let value = Value::new(self.input_shape.clone(), input.to_vec())?;
        let output = self.infer(&[&value])?.pop();
        match output.map(Value::into_data) {
            Some(Data::F32(values)) => Ok(values),
            _ => Err(Error::Engine { stage: "running the model", cause: "no float32 output".into() }),
        }
    }

    /// Whether the model has exactly one `float32` input and one `float32` output, which is what [`run`](Self::run) takes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the inputs or outputs that it has.
    pub fn check_plain(&self) -> Result<()> {
        let one_of_f32 = |ports: &[Port], kind| match ports {
            [Port { element_type: ElementType::F32, .. }] => Ok(()),
            [port] => Err(Error::Unsupported {
                place: format!("engine: {kind} `{}`", port.name),
                what: format!("element type {} (only float32)", port.element_type.name()),
            }),
            _ => {
                let what = format!(
                    "a number of {kind}s other than 1 ({}: {})",
                    ports.len(),
                    names(ports).join(", ")
                );
                Err(Error::Unsupported { place: "engine".into(), what })
            }
        };
        one_of_f32(&self.inputs, "input")?;
        one_of_f32(&self.outputs, "output")
    }

    /// What runs it.
    pub const fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs, in order.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Name of the first input.
    pub fn input_name(&self) -> &str {
        self.inputs.first().map_or("", |port| &port.name)
    }

    /// Shape of the first input, the batch included, with open dimensions at their default [`Sizes`].
    pub fn input_shape(&self) -> &[usize] {
        &self.input_shape
    }

    /// Name of the first output.
    pub fn output_name(&self) -> &str {
        self.outputs.first().map_or("", |port| &port.name)
    }

    /// Shape of the first output for inputs of the default [`Sizes`].
    pub fn output_shape(&self) -> &[usize] {
        &self.output_shape
    }
}

impl fmt::Debug for Engine {
    /// Without the weights.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("runtime", &self.runtime)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

/// What a model takes, in order.
///
/// # Errors
/// [`Error::Unsupported`] or [`Error::UnknownShape`] for an input that no engine takes.
pub fn inputs(model: &Model) -> Result<Vec<Port>> {
    model.graph()?.data_inputs().map(|info| port(info, "input")).collect()
}

/// What a model gives, in order.
///
/// # Errors
/// [`Error::Unsupported`] for an output that no engine gives.
pub fn outputs(model: &Model) -> Result<Vec<Port>> {
    model.graph()?.proto.output.iter().map(|info| port(info, "output")).collect()
}

fn names(ports: &[Port]) -> Vec<String> {
    ports.iter().map(|port| port.name.clone()).collect()
}

fn port(info: &::tract_onnx::pb::ValueInfoProto, kind: &str) -> Result<Port> {
    let dtype = declared_dtype(info);
    // Outputs that only the analysis knows are float32: everything else is declared.
    let name = dtype.map_or("float32", |dtype: &Dtype| dtype.name);
    let element_type = ElementType::of_name(name).ok_or_else(|| Error::Unsupported {
        place: format!("engine: {kind} `{}`", info.name),
        what: format!("element type {name} (only float32, int64 and bool)"),
    })?;
    let dims = if kind == "input" { dims(info)? } else { dims(info).unwrap_or_default() };
    Ok(Port { name: info.name.clone(), element_type, dims })
}

/// Whether a tensor may go into an input. One symbol has one size in all inputs of a run.
fn check<'p>(port: &'p Port, value: &Value, sizes: &mut HashMap<&'p str, usize>) -> Result<()> {
    let is_fitting = |(dim, &size): (&'p Dim, &usize)| match dim {
        Dim::Fixed(fixed) => *fixed == size,
        Dim::Open(symbol) if symbols(dim).any(|term| term == symbol) => {
            *sizes.entry(symbol).or_insert(size) == size
        }
        // Sums are the model's own business, as long as it can compute with them.
        Dim::Open(_) => true,
    };
    let fits = value.element_type() == port.element_type
        && value.shape().len() == port.dims.len()
        && port.dims.iter().zip(value.shape()).all(is_fitting);
    if fits {
        return Ok(());
    }
    let dims = port.dims.iter().map(|dim| match dim {
        Dim::Open(symbol) => {
            sizes.get(symbol.as_str()).map_or_else(|| dim.to_string(), |size| format!("{symbol} = {size}"))
        }
        Dim::Fixed(_) => dim.to_string(),
    });
    let dims: Vec<_> = dims.collect();
    Err(Error::InputMismatch {
        name: port.name.clone(),
        expected: format!("{} [{}]", port.element_type.name(), dims.join(", ")),
        found: format!("{} {:?}", value.element_type().name(), value.shape()),
    })
}
