//! A split on disk: `head.onnx`, `tail.onnx`, and `manifest.json`, which says what belongs together.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::graph::Graph;
use crate::model::write_file;
use crate::seam::Origin;
use crate::sizes::{Dim, dims};
use crate::{Error, Model, Result, Runtime, Split};

/// The manifest's file in the folder of a split.
pub const MANIFEST: &str = "manifest.json";
const HEAD: &str = "head.onnx";
const TAIL: &str = "tail.onnx";
const FORMAT: &str = "narrows-split";
/// The format this crate writes, and the newest it reads.
const VERSION: u32 = 1;
/// The longest manifest that is read, in bytes: some thousand tensors.
const MAX_BYTES: u64 = 1 << 20;

/// What a split consists of, as `manifest.json` says it. docs/models.md describes the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    version: u32,
    /// SHA-256 of the whole model's file, in lower-case hexadecimal.
    pub model_sha256: String,
    /// Name of the payload.
    pub cut: String,
    /// The near side.
    pub head: Half,
    /// The far side.
    pub tail: Half,
    /// How the halves were compared with the whole, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
}

/// One side of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Half {
    /// Its file, in the manifest's folder.
    pub file: String,
    /// SHA-256 of that file, in lower-case hexadecimal.
    pub sha256: String,
    /// What it takes, in order.
    pub inputs: Vec<Described>,
    /// What it gives, in order.
    pub outputs: Vec<Described>,
}

/// What a tensor of a split is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The tensor that crosses, compressed.
    Payload,
    /// A small tensor that the tail needs too: an input of the model or a shape from the head.
    Side,
    /// A tensor that stays where it is from one step to the next.
    State,
    /// An input of the whole model.
    Input,
    /// An output of the whole model.
    Output,
}

/// A tensor that goes into a half or comes out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub class: Class,
    /// Its element type, such as `float32`.
    pub dtype: String,
    /// Its dimensions: a number, or a text for an open one.
    pub shape: Vec<Size>,
    /// Of state that leaves: the input through which it enters again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns_as: Option<String>,
}

/// A dimension in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// It is always this long.
    Fixed(usize),
    /// It is open; the text names it.
    Open(String),
}

impl From<Dim> for Size {
    fn from(dim: Dim) -> Self {
        match dim {
            Dim::Fixed(size) => Self::Fixed(size),
            Dim::Open(symbol) => Self::Open(symbol),
        }
    }
}

/// A comparison of the halves with the whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// What ran them, such as `tract`.
    pub engine: String,
    /// How many random inputs they were given.
    pub inputs: usize,
    /// The largest difference between two outputs: 0 if they were equal bit for bit.
    pub largest_difference: f32,
}

impl Checked {
    /// A comparison that has been made.
    pub fn new(runtime: Runtime, inputs: usize, largest_difference: f32) -> Self {
        Self { engine: runtime.name().into(), inputs, largest_difference }
    }
}

impl Split {
    /// What the split consists of.
    ///
    /// # Errors
    /// As [`cuts`](crate::cuts()).
    pub fn manifest(&self) -> Result<Manifest> {
        Ok(Manifest {
            format: FORMAT.into(),
            version: VERSION,
            model_sha256: self.head.metadata("narrows.model_sha256").unwrap_or_default().into(),
            cut: self.cut.name.clone(),
            head: describe(self, &self.head, HEAD)?,
            tail: describe(self, &self.tail, TAIL)?,
            checked: None,
        })
    }

    /// Write `head.onnx`, `tail.onnx` and, when both are there, `manifest.json` into a folder that exists.
    ///
    /// # Errors
    /// [`Error::Io`], else as [`Split::manifest`].
    pub fn write(&self, folder: impl AsRef<Path>, checked: Option<Checked>) -> Result<Manifest> {
        let folder = folder.as_ref();
        let manifest = Manifest { checked, ..self.manifest()? };
        self.head.write(folder.join(HEAD))?;
        self.tail.write(folder.join(TAIL))?;
        write_file(&folder.join(MANIFEST), manifest.to_json().as_bytes())?;
        Ok(manifest)
    }
}

impl Manifest {
    /// Read and check the manifest in a folder. The halves are not looked at: an end may have only its own.
    ///
    /// # Errors
    /// [`Error::Io`], else as [`Manifest::from_json`].
    pub fn read(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join(MANIFEST);
        let io = |source| Error::Io { path: path.clone(), source };
        let mut json = Vec::new();
        fs::File::open(&path).map_err(io)?.take(MAX_BYTES + 1).read_to_end(&mut json).map_err(io)?;
        Self::from_json(&json)
    }

    /// Decode and check a manifest.
    ///
    /// # Errors
    /// [`Error::Manifest`] with the rule that it breaks.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let broken = |rule: String| Error::Manifest { rule };
        if json.len() as u64 > MAX_BYTES {
            return Err(broken(format!("it must have at most {MAX_BYTES} bytes, it has more")));
        }
        // What it is comes before what it holds: another version may hold something else.
        let kind: Kind = serde_json::from_slice(json).map_err(|error| broken(error.to_string()))?;
        if kind.format != FORMAT || kind.version == 0 || kind.version > VERSION {
            let found = format!("`{}` version {}", kind.format, kind.version);
            return Err(broken(format!("it must be `{FORMAT}` version 1 to {VERSION}, it is {found}")));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|error| broken(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest as JSON, for people too.
    pub fn to_json(&self) -> String {
        // Text and numbers with text keys: nothing that JSON can't hold.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Read the head that this manifest describes.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if it is another one, else as [`Model::read`].
    pub fn read_head(&self, folder: impl AsRef<Path>) -> Result<Model> {
        self.read_half(folder.as_ref(), &self.head, "head")
    }

    /// Read the tail that this manifest describes.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if it is another one, else as [`Model::read`].
    pub fn read_tail(&self, folder: impl AsRef<Path>) -> Result<Model> {
        self.read_half(folder.as_ref(), &self.tail, "tail")
    }

    fn read_half(&self, folder: &Path, half: &Half, role: &str) -> Result<Model> {
        let path = folder.join(&half.file);
        let model = Model::read(&path)?;
        let mismatch = |what: &str, expected: &str, found: &str| {
            let what = format!("{}{what}", path.display());
            Err(Error::Mismatch { what, expected: expected.into(), found: found.into() })
        };
        if model.sha256() != half.sha256 {
            return mismatch(" (SHA-256)", &half.sha256, model.sha256());
        }
        let noted = |key: &str| model.metadata(key).unwrap_or("not noted");
        for (key, expected) in
            [("narrows.role", role), ("narrows.model_sha256", &self.model_sha256), ("narrows.cut", &self.cut)]
        {
            if noted(key) != expected {
                return mismatch(&format!(" ({key})"), expected, noted(key));
            }
        }
        let graph = model.graph()?;
        let inputs: Vec<_> = graph.data_inputs().map(|info| info.name.as_str()).collect();
        let outputs: Vec<_> = graph.proto.output.iter().map(|info| info.name.as_str()).collect();
        for (kind, found, expected) in [("inputs", inputs, &half.inputs), ("outputs", outputs, &half.outputs)]
        {
            let expected: Vec<_> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
            if found != expected {
                return mismatch(&format!(" ({kind})"), &expected.join(", "), &found.join(", "));
            }
        }
        Ok(model)
    }

    fn check(&self) -> Result<()> {
        let rule = |rule: String| Err(Error::Manifest { rule });
        let hashes = [&self.model_sha256, &self.head.sha256, &self.tail.sha256];
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if let Some(hash) = hashes.into_iter().find(|hash| hash.len() != 64 || !hash.bytes().all(is_digit)) {
            return rule(format!("a SHA-256 must be 64 lower-case hexadecimal digits, one is `{hash}`"));
        }
        for file in [&self.head.file, &self.tail.file] {
            if file.is_empty() || file.contains(['/', '\\', ':']) || file == ".." || file == "." {
                return rule(format!("a half must be a file in the manifest's folder, one is `{file}`"));
            }
        }
        for (half, tensors) in [("head gives", &self.head.outputs), ("tail takes", &self.tail.inputs)] {
            let payload = tensors.iter().filter(|tensor| tensor.class == Class::Payload);
            let names: Vec<_> = payload.map(|tensor| tensor.name.as_str()).collect();
            if names != [self.cut.as_str()] {
                let found = names.join(", ");
                return rule(format!(
                    "the only payload that the {half} must be `{}`, it is `{found}`",
                    self.cut
                ));
            }
        }
        Ok(())
    }
}

/// What every version of a manifest starts with.
#[derive(Deserialize)]
struct Kind {
    format: String,
    version: u32,
}

fn describe(split: &Split, model: &Model, file: &str) -> Result<Half> {
    let graph: Graph<'_> = model.graph()?;
    let cut = &split.cut;
    let states = || cut.head_states.iter().chain(&cut.tail_states);
    let side = |name: &str, origin| cut.side.iter().any(|side| side.name == name && side.origin == origin);
    let described = |info: &tract_onnx::pb::ValueInfoProto, is_input: bool| {
        let name = info.name.as_str();
        let from_head = side(name, Origin::Head);
        let is_tails = file == TAIL && side(name, Origin::Input);
        let class = match () {
            () if name == cut.name => Class::Payload,
            () if from_head || is_tails => Class::Side,
            () if states().any(|state| state.input == name || state.output == name) => Class::State,
            () if is_input => Class::Input,
            () => Class::Output,
        };
        let returns_as =
            states().find(|state| !is_input && state.output == name).map(|state| state.input.clone());
        let dtype = crate::analysis::declared_dtype(info).map_or("unknown", |dtype| dtype.name);
        let shape = dims(info).unwrap_or_default().into_iter().map(Size::from).collect();
        Described { name: name.into(), class, dtype: dtype.into(), shape, returns_as }
    };
    Ok(Half {
        file: file.into(),
        sha256: model.sha256().into(),
        inputs: graph.data_inputs().map(|info| described(info, true)).collect(),
        outputs: graph.proto.output.iter().map(|info| described(info, false)).collect(),
    })
}
