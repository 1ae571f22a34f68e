//! A tail that can be asked, with all that it takes beside its payload.

use std::path::Path;

use narrows::Tensor;
use narrows_link::SplitId;
use narrows_split::{Dim, Model, Port, Runtime, Session, Value};

use crate::evaluate::{End, read_half};
use crate::failure::{Failure, Result};

/// A tail, ready to run.
pub struct Served {
    /// The tensor it was cut at.
    pub cut: String,
    /// The split it is of, as far as its file says.
    pub split: SplitId,
    /// With empty state; each stream has a copy.
    pub session: Session,
    pub payload: Port,
    /// Inputs beside the payload that are no state, in order.
    pub side: Vec<Port>,
    /// Outputs that are no state, in order.
    pub outputs: Vec<Port>,
}

impl Served {
    /// The tail in a folder that `narrows split` made, or in an ONNX file.
    pub fn read(path: &Path, runtime: Runtime) -> Result<Self> {
        Self::new(&read_half(path, End::Tail)?, &path.display().to_string(), runtime)
    }

    /// The tail in `model`; `name` tells people which.
    pub fn new(model: &Model, name: &str, runtime: Runtime) -> Result<Self> {
        let session = Session::new(model, runtime)
            .map_err(|error| Failure::model(format!("cannot run {name}"), &error))?;
        let cut = model.metadata("narrows.cut").unwrap_or(session.engine().input_name()).to_owned();
        let mut side: Vec<Port> = session.inputs().cloned().collect();
        let payload = side.iter().position(|port| port.name == cut);
        let missing = || Failure::data(format!("{name} takes no tensor {cut}, where it was cut"));
        let payload = side.remove(payload.ok_or_else(missing)?);
        let outputs = session.outputs().cloned().collect();
        Ok(Self { split: split_id(model), cut, session, payload, side, outputs })
    }

    /// Whether a frame is all it takes.
    pub fn takes_frames_alone(&self) -> bool {
        self.side.is_empty() && !self.session.has_state()
    }

    /// Whether several frames can be run at once: the batch is open, and nothing else comes with them.
    pub fn takes_batches(&self) -> bool {
        self.takes_frames_alone() && matches!(self.payload.dims.first(), Some(Dim::Open(_)))
    }

    /// What beside a frame it takes, for people.
    pub fn needs(&self) -> String {
        let mut needs: Vec<_> = self.side.iter().map(|port| format!("the tensor {}", port.name)).collect();
        if self.session.has_state() {
            needs.push("a stream for its state".into());
        }
        needs.join(" and ")
    }

    /// Features as the payload's input takes them: a batch of one is put back where the frame left it out.
    pub fn payload_of(&self, features: &Tensor) -> narrows_split::Result<Value> {
        let dims = features.shape().dims();
        let is_short = dims.len() + 1 == self.payload.dims.len();
        let shape: Vec<usize> = is_short.then_some(1).into_iter().chain(dims.iter().copied()).collect();
        Value::new(shape, features.to_f32())
    }
}

/// The split that a half is of, as its file says.
pub fn split_id(half: &Model) -> SplitId {
    match (half.metadata("narrows.model_sha256"), half.metadata("narrows.cut")) {
        (Some(sha256), Some(cut)) => SplitId::of(sha256, cut),
        _ => SplitId::UNKNOWN,
    }
}
