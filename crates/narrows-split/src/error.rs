use std::io;
use std::path::PathBuf;

/// What can go wrong from the bytes of a model to the output of an engine.
///
/// Each variant says what happened, to which tensor or node, and the bound that was broken, so that a caller
/// can act on it without reading the text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The bytes are not an ONNX protobuf message.
    #[error("not an ONNX model ({bytes} bytes): {cause}")]
    Decode {
        /// Length of the input.
        bytes: usize,
        /// What the protobuf decoder said.
        cause: String,
    },
    /// The message decodes and breaks a rule of ONNX.
    #[error("not a valid ONNX model: {place}: {rule}")]
    Invalid {
        /// The node, tensor or field.
        place: String,
        /// The rule and what was found instead.
        rule: String,
    },
    /// Two producers (inputs, initialisers, node outputs) or two model outputs carry one name.
    #[error("not a valid ONNX model: `{name}` is produced by {first} and again by {second}")]
    DuplicateName {
        /// The tensor.
        name: String,
        /// Its first producer.
        first: String,
        /// Its second producer.
        second: String,
    },
    /// A node or model output reads a tensor that nothing before it produces.
    #[error("not a valid ONNX model: {reader} reads `{name}`, which nothing before it produces")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// Who reads it.
        reader: String,
    },
    /// The stored data of a constant does not fill its shape.
    #[error(
        "not a valid ONNX model: constant `{name}` holds {found} elements, its shape asks for {expected}"
    )]
    ConstantSize {
        /// The constant.
        name: String,
        /// Product of its dimensions.
        expected: u64,
        /// Elements stored.
        found: u64,
    },
    /// The model is valid and uses something this crate doesn't handle.
    #[error("{place}: {what} is not supported")]
    Unsupported {
        /// The node or tensor.
        place: String,
        /// The unsupported thing.
        what: String,
    },
    /// A tensor is larger than this crate is willing to handle.
    #[error("`{name}` has {elements} elements, the limit is {limit}")]
    LimitExceeded {
        /// The tensor.
        name: String,
        /// Its elements.
        elements: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// The analysis found no fixed shape for a tensor whose shape is needed.
    #[error("the shape of `{name}` is not known: {known}; only a batch dimension may be left open")]
    UnknownShape {
        /// The tensor.
        name: String,
        /// What is known of it.
        known: String,
    },
    /// The inference engine refused the model or failed on it.
    #[error("{stage} failed: {cause}")]
    Engine {
        /// What was being done.
        stage: &'static str,
        /// What the engine said.
        cause: String,
    },
    /// An engine was fed a slice of the wrong length.
    #[error("input `{name}` takes {expected} values, got {found}")]
    InputLength {
        /// The input.
        name: String,
        /// Product of its dimensions.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// No tensor of the model has this name.
    #[error("the model has no tensor `{name}`; {}", suggestion(nearest))]
    NoSuchTensor {
        /// The name asked for.
        name: String,
        /// Valid cuts, most similar name first.
        nearest: Vec<String>,
    },
    /// Other tensors would have to cross together with this one.
    #[error(
        "`{name}` alone is not a cut: {} would have to cross with it; {}",
        quoted(live),
        suggestion(nearest)
    )]
    NotACut {
        /// The tensor asked for.
        name: String,
        /// The other tensors alive once it is computed.
        live: Vec<String>,
        /// The last valid cut before it and the first one after it.
        nearest: Vec<String>,
    },
    /// Cutting at this tensor leaves one side without work.
    #[error("`{name}` is {reason}: there is nothing to split; {}", suggestion(nearest))]
    NothingToSplit {
        /// The tensor asked for.
        name: String,
        /// What it is.
        reason: &'static str,
        /// Valid cuts.
        nearest: Vec<String>,
    },
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let list = shown.join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => list,
        more => format!("{list} and {more} more"),
    }
}

fn suggestion(nearest: &[String]) -> String {
    if nearest.is_empty() {
        "the model has no inner cut".into()
    } else {
        format!("nearest cuts: {}", quoted(nearest))
    }
}
