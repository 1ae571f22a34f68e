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
    #[error("the shape of `{name}` is not known: {known}")]
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
    /// A size was given for an open dimension that the model does not have.
    #[error("the model has no open dimension `{symbol}`; {}", dimensions(known))]
    NoSuchDimension {
        /// The dimension asked for.
        symbol: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// The inference engine is not on this machine, or not in this build.
    #[error("{engine} is not available: {cause}")]
    EngineMissing {
        /// The engine.
        engine: &'static str,
        /// Where it was looked for, and what went wrong.
        cause: String,
    },
    /// The elements of a tensor do not fill its shape.
    #[error("{found} elements do not fill the shape {shape:?}")]
    ValueLength {
        /// The shape.
        shape: Vec<usize>,
        /// Elements given.
        found: usize,
    },
    /// An engine was fed something other than its input.
    #[error("input `{name}` takes {expected}, got {found}")]
    InputMismatch {
        /// The input.
        name: String,
        /// Its element type and shape.
        expected: String,
        /// Those of the tensor given.
        found: String,
    },
    /// An engine was fed too few tensors, too many, or one that it has no input for.
    #[error("the inputs must be {}, got {}", quoted(expected), quoted(found))]
    InputNames {
        /// The inputs.
        expected: Vec<String>,
        /// Names of what was given.
        found: Vec<String>,
    },
    /// A manifest is not what it should be.
    #[error("not a valid manifest: {rule}")]
    Manifest {
        /// The rule that it breaks and what was found instead.
        rule: String,
    },
    /// Bytes are not a packed side tensor.
    #[error("not a packed side tensor: {rule}")]
    Packed {
        /// The rule that they break.
        rule: String,
    },
    /// Two parts of a split do not belong together.
    #[error("{what} does not belong to this split: it is {found}, the manifest says {expected}")]
    Mismatch {
        /// The part.
        what: String,
        /// What the manifest says of it.
        expected: String,
        /// What it is.
        found: String,
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
    /// No weight of the model has this name.
    #[error("the model has no weight `{name}`: no initialiser of that name holds floats")]
    NoSuchWeight {
        /// The name asked for.
        name: String,
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

fn dimensions(known: &[String]) -> String {
    if known.is_empty() { "all its dimensions are fixed".into() } else { format!("it has {}", quoted(known)) }
}

fn suggestion(nearest: &[String]) -> String {
    if nearest.is_empty() {
        "the model has no inner cut".into()
    } else {
        format!("nearest cuts: {}", quoted(nearest))
    }
}
