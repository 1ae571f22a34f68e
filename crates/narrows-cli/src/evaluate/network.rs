//! Networks and their halves.

use std::path::Path;

use narrows::Tensor;
use narrows_split::{Engine, Model};

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

/// The head or the tail of a split network, ready to run.
pub struct Half {
    /// The cut it was made at, or else the tensor at its open end.
    pub cut: String,
    engine: Engine,
}

impl Half {
    /// The head in `model`, whose output is sent.
    pub fn head(model: &Model, name: &str) -> Result<Self> {
        let engine = engine(model, name)?;
        let cut = model.metadata("narrows.cut").unwrap_or(engine.output_name()).to_owned();
        Ok(Self { cut, engine })
    }

    /// The tail in `model`, whose input is received.
    pub fn tail(model: &Model, name: &str) -> Result<Self> {
        let engine = engine(model, name)?;
        let cut = model.metadata("narrows.cut").unwrap_or(engine.input_name()).to_owned();
        Ok(Self { cut, engine })
    }

    /// A half from its ONNX file.
    pub fn read(path: &Path, half: impl FnOnce(&Model, &str) -> Result<Self>) -> Result<Self> {
        let name = path.display().to_string();
        let model = Model::read(path)
            .map_err(|error| Failure::model(format!("cannot read the model {name}"), &error))?;
        half(&model, &name)
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
