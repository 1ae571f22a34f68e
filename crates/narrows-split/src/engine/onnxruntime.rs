//! ONNX Runtime, loaded at run time.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::SessionInputValue;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{DynValue, TensorElementType, TensorRef, ValueType};

use super::{Backend, Optimisation};
use crate::analysis::caught;
use crate::value::{Data, Value};
use crate::{Error, Model, Result};

/// Names the library's file.
const VARIABLE: &str = "ORT_DYLIB_PATH";
const ENGINE: &str = "ONNX Runtime";

/// The two rewrites at Basic that look across a cut. One merges a matrix product and a bias into `Gemm` where it knows the
/// shapes, and of a tensor that has become an input it knows more. The other moves transpositions past the operators behind
/// them, whose sums then come out in another order, and cannot where one ends the head (docs/decisions/0005).
const CROSSING: &str = "MatMulAddFusion;TransposeOptimizer";

/// A model in ONNX Runtime.
pub(super) struct OnnxRuntime {
    /// A run takes every core there is, so that runs one after the other are no slower than side by side.
    session: Mutex<Session>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl OnnxRuntime {
    pub(super) fn load(
        model: &Model,
        optimisation: Optimisation,
        inputs: Vec<String>,
        outputs: Vec<String>,
    ) -> Result<Self> {
        let environment = environment()?;
        let level = match optimisation {
            Optimisation::Basic => GraphOptimizationLevel::Level1,
            Optimisation::All => GraphOptimizationLevel::All,
        };
        let failed =
            |error: ort::Error| Error::Engine { stage: "preparing the model", cause: error.to_string() };
        let session = caught("preparing the model", || {
            let builder = Session::builder(environment).map_err(failed)?;
            let builder = builder.with_optimization_level(level).map_err(|error| failed(error.into()))?;
            let builder = match optimisation {
                Optimisation::Basic => builder.with_disabled_optimizers(CROSSING),
                Optimisation::All => Ok(builder),
            };
            let builder = builder.map_err(|error| failed(error.into()))?;
            // Threads that spin between runs would take the cores from the coder.
            let mut builder = builder.with_intra_op_spinning(false).map_err(|error| failed(error.into()))?;
            builder.commit_from_memory(&model.to_bytes()).map_err(failed)
        })?;
        Ok(Self { session: Mutex::new(session), inputs, outputs })
    }
}

impl Backend for OnnxRuntime {
    fn run(&self, inputs: &[&Value]) -> Result<Vec<Value>> {
        const STAGE: &str = "running the model";
        let failed = |error: ort::Error| Error::Engine { stage: STAGE, cause: error.to_string() };
        caught(STAGE, || {
            let named = self.inputs.iter().zip(inputs);
            let named = named.map(|(name, value)| Ok((name.as_str(), tensor(value).map_err(failed)?)));
            let named = named.collect::<Result<Vec<(&str, SessionInputValue<'_>)>>>()?;
            let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            let outputs = session.run(named).map_err(failed)?;
            self.outputs
                .iter()
                .map(|name| match outputs.get(name) {
                    Some(output) => value(name, output),
                    None => Err(Error::Engine { stage: STAGE, cause: format!("no output `{name}`") }),
                })
                .collect()
        })
    }
}

fn tensor(value: &Value) -> ort::Result<SessionInputValue<'_>> {
    let shape = value.shape();
    Ok(match value.data() {
        Data::F32(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
        Data::I64(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
        Data::Bool(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
    })
}

fn value(name: &str, output: &DynValue) -> Result<Value> {
    let failed = |error: ort::Error| Error::Engine { stage: "reading the result", cause: error.to_string() };
    let unsupported = |what: String| Error::Unsupported { place: format!("engine: output `{name}`"), what };
    let ValueType::Tensor { ty, shape, .. } = output.dtype() else {
        return Err(unsupported("a type other than tensor".into()));
    };
    let shape: Vec<usize> = shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
    let data: Data = match ty {
        TensorElementType::Float32 => output.try_extract_tensor::<f32>().map_err(failed)?.1.to_vec().into(),
        TensorElementType::Int64 => output.try_extract_tensor::<i64>().map_err(failed)?.1.to_vec().into(),
        TensorElementType::Bool => output.try_extract_tensor::<bool>().map_err(failed)?.1.to_vec().into(),
        other => return Err(unsupported(format!("element type {other:?}"))),
    };
    Value::new(shape, data)
}

/// The library, loaded at the first call and kept for the life of the process.
fn environment() -> Result<&'static Environment> {
    static ENVIRONMENT: OnceLock<std::result::Result<Environment, String>> = OnceLock::new();
    let loaded = ENVIRONMENT.get_or_init(|| {
        let path = library()?;
        let from = |error: String| format!("{}: {error}", path.display());
        let loaded = caught("loading the library", || {
            let builder = ort::init_from(&path).map_err(|error| missing(from(error.to_string())))?;
            let environment = builder.with_name("narrows").with_telemetry(false).build();
            environment.map_err(|error| missing(from(error.to_string())))
        });
        let environment = loaded.map_err(|error| match error {
            Error::EngineMissing { cause, .. } => cause,
            error => from(error.to_string()),
        })?;
        // Its warnings are about nodes it has rewritten.
        environment.set_log_level(LogLevel::Error);
        Ok(environment)
    });
    loaded.as_ref().map_err(|cause| missing(cause.clone()))
}

fn missing(cause: String) -> Error {
    Error::EngineMissing { engine: ENGINE, cause }
}

/// The library's file.
fn library() -> std::result::Result<PathBuf, String> {
    if let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        // A relative path would be looked for beside the program.
        return path.canonicalize().map_err(|error| format!("{VARIABLE} = {}: {error}", path.display()));
    }
    let mut folders: Vec<PathBuf> = env::var_os("VIRTUAL_ENV").map(PathBuf::from).into_iter().collect();
    let programs =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    folders.extend(programs.iter().filter_map(|folder| folder.parent()).map(Path::to_path_buf));
    folders.extend(env::home_dir().map(|home| home.join(".local")));
    let wheel = folders.iter().find_map(|folder| wheel(&folder.join("lib")));
    wheel.ok_or_else(|| {
        format!(
            "no library found; let {VARIABLE} name libonnxruntime.so, or `pip install onnxruntime` for a Python on the PATH"
        )
    })
}

/// The library in an installed Python package, below `lib`.
fn wheel(lib: &Path) -> Option<PathBuf> {
    let entries = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort_unstable();
        paths.into_iter().rev()
    };
    let named = |path: &Path, start: &str| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
    };
    let pythons = entries(lib).filter(|path| named(path, "python3"));
    let packages =
        pythons.flat_map(|python| ["site-packages", "dist-packages"].map(|folder| python.join(folder)));
    let mut libraries = packages.flat_map(|packages| entries(&packages.join("onnxruntime/capi")));
    libraries.find(|path| {
        let is_shared_object = named(path, "libonnxruntime.so.") || named(path, "libonnxruntime.1.");
        is_shared_object || path.file_name().is_some_and(|name| name == "onnxruntime.dll")
    })
}
