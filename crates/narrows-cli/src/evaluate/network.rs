//! Networks and their halves.

use std::path::Path;

use narrows::Tensor;
use narrows_split::{Engine, MANIFEST, Manifest, Model, Runtime};

use crate::failure::{Failure, Result};

/// The demo network: a residual network for Fashion-MNIST (`models/fashion-resnet` says how it was trained).
pub fn demo_model() -> Result<Model> {
    let bytes =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/model.onnx"));
    Model::from_bytes(bytes).map_err(|error| Failure::model("cannot read the demo network", &error))
}

/// An engine for a `model` of one input and one output, which `name` tells people apart from others.
pub fn engine(model: &Model, name: &str) -> Result<Engine> {
    // Better refused here than at the first image.
    let engine = Engine::load(model).and_then(|engine| engine.check_plain().map(|()| engine));
    engine.map_err(|error| Failure::model(format!("cannot run {name}"), &error))
}

/// One of the two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Head,
    Tail,
}

/// The half in a folder that `narrows split` made, or in an ONNX file. Where a manifest that names the file lies beside it,
/// the two must belong together.
pub fn read_half(path: &Path, end: End) -> Result<Model> {
    let unread = |error| Failure::model(format!("cannot read {}", path.display()), &error);
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    if let Some(folder) = folder.filter(|folder| path.is_dir() || folder.join(MANIFEST).exists()) {
        let manifest = Manifest::read(folder).map_err(unread)?;
        let file = match end {
            End::Head => &manifest.head.file,
            End::Tail => &manifest.tail.file,
        };
        if path.is_dir() || folder.join(file) == path {
            let half = match end {
                End::Head => manifest.read_head(folder),
                End::Tail => manifest.read_tail(folder),
            };
            return half.map_err(unread);
        }
    }
    Model::read(path).map_err(unread)
}

/// The head or the tail of a split network, ready to run.
pub struct Half {
    /// The cut it was made at, or else the tensor at its open end.
    pub cut: String,
    engine: Engine,
}

impl Half {
    /// The head in `model`, whose output is sent.
    pub fn head(model: &Model, name: &str) -> Result<Self> {
        Self::head_on(model, name, Runtime::Tract)
    }

    /// The same, run by an engine of choice.
    pub fn head_on(model: &Model, name: &str, runtime: Runtime) -> Result<Self> {
        let failed = |error| Failure::model(format!("cannot run {name}"), &error);
        let engine = Engine::load_on(model, runtime).map_err(failed)?;
        engine.check_plain().map_err(failed)?;
        let cut = model.metadata("narrows.cut").unwrap_or(engine.output_name()).to_owned();
        Ok(Self { cut, engine })
    }

    /// The tail in `model`, whose input is received.
    pub fn tail(model: &Model, name: &str) -> Result<Self> {
        let engine = engine(model, name)?;
        let cut = model.metadata("narrows.cut").unwrap_or(engine.input_name()).to_owned();
        Ok(Self { cut, engine })
    }

    /// A half from its ONNX file, or from the folder of its split.
    pub fn read(path: &Path, end: End) -> Result<Self> {
        let (model, name) = (read_half(path, end)?, path.display().to_string());
        match end {
            End::Head => Self::head(&model, &name),
            End::Tail => Self::tail(&model, &name),
        }
    }

    /// Shape of what it takes, without the batch.
    pub fn input_dims(&self) -> &[usize] {
        without_batch(self.engine.input_shape())
    }

    /// Shape of what it gives, without the batch.
    pub fn output_dims(&self) -> &[usize] {
        without_batch(self.engine.output_shape())
    }

    /// Run it once.
    ///
    /// # Errors
    /// As [`Engine::run`], and [`narrows::Error::Shape`] never: the engine fills its output's shape.
    pub fn run(&self, input: &[f32]) -> narrows_split::Result<Tensor> {
        let output = self.engine.run(input)?;
        let elements = output.len();
        Tensor::new(output, self.output_dims()).map_err(|error| narrows_split::Error::Unsupported {
            place: format!("output `{}`", self.engine.output_name()),
            what: format!("{elements} elements ({error})"),
        })
    }
}

/// The axes after the first, if the first is a batch of one.
pub fn without_batch(dims: &[usize]) -> &[usize] {
    match dims {
        [1, rest @ ..] if !rest.is_empty() => rest,
        dims => dims,
    }
}
