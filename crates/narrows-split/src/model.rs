use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tract_onnx::pb;

use crate::constant::constant_bytes;
use crate::graph::Graph;
use crate::{Error, Result};

/// A checked ONNX model.
///
/// One that exists decodes, has a graph whose nodes are in topological order, gives every tensor one producer,
/// and stores exactly as much data for every constant as its shape says. Models with weights in separate files
/// are not supported.
///
/// The protobuf fields known here are those of ONNX 1.16; newer ones are dropped when the model is written.
#[derive(Clone)]
pub struct Model {
    proto: pb::ModelProto,
    sha256: String,
}

impl Model {
    /// Read and check an ONNX file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file can't be read, else as [`Model::from_bytes`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
        Self::from_bytes(&bytes)
    }

    /// Write the model so that a reader sees either the old file or the whole new one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        write_file(path.as_ref(), &self.to_bytes())
    }

    /// Decode and check a model.
    ///
    /// # Errors
    /// [`Error::Decode`] if this is not a protobuf message of the right kind, and [`Error::Invalid`],
    /// [`Error::DuplicateName`], [`Error::MissingTensor`], [`Error::ConstantSize`] or [`Error::Unsupported`] if
    /// it is not a model that can be split.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let proto = pb::ModelProto::decode(bytes)
            .map_err(|cause| Error::Decode { bytes: bytes.len(), cause: cause.to_string() })?;
        Self::checked(proto, bytes)
    }

    /// The model as an ONNX file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.proto.encode_to_vec()
    }

    /// SHA-256, in lower-case hexadecimal, of the bytes the model was read from; for a head or a tail made by
    /// [`split`](crate::split()), of the file it would be written to.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The value of a metadata property, such as `narrows.role`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.proto.metadata_props.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
    }

    /// The same model with more of its `float32` tensors as outputs, after those that it has: to look at what happens
    /// inside.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if it has no tensor of that name, [`Error::DuplicateName`] if one is an output already.
    pub fn exposing(&self, names: &[&str]) -> Result<Self> {
        let tensor =
            pb::type_proto::Tensor { elem_type: pb::tensor_proto::DataType::Float as i32, shape: None };
        let kind = pb::TypeProto {
            value: Some(pb::type_proto::Value::TensorType(tensor)),
            ..pb::TypeProto::default()
        };
        let info = |name: &&str| pb::ValueInfoProto {
            name: (*name).into(),
            r#type: Some(kind.clone()),
            ..pb::ValueInfoProto::default()
        };
        let mut proto = self.proto.clone();
        if let Some(graph) = &mut proto.graph {
            graph.output.extend(names.iter().map(info));
        }
        Self::from_proto(proto)
    }

    pub(crate) fn from_proto(proto: pb::ModelProto) -> Result<Self> {
        let bytes = proto.encode_to_vec();
        Self::checked(proto, &bytes)
    }

    pub(crate) fn proto(&self) -> &pb::ModelProto {
        &self.proto
    }

    pub(crate) fn graph(&self) -> Result<Graph<'_>> {
        Graph::new(graph_of(&self.proto)?)
    }

    fn checked(proto: pb::ModelProto, bytes: &[u8]) -> Result<Self> {
        let graph = graph_of(&proto)?;
        Graph::new(graph)?;
        check_constants(graph)?;
        let sha256 = hexadecimal(&Sha256::digest(bytes));
        Ok(Self { proto, sha256 })
    }
}

/// Write a file so that a reader sees either the old one or the whole new one.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::Io { path: path.into(), source };
    let file_name = path.file_name().ok_or_else(|| io(std::io::ErrorKind::InvalidFilename.into()))?;
    let mut partial_name = file_name.to_os_string();
    partial_name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(partial_name);
    let written = fs::File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&partial, path)).map_err(|source| {
        // The first error is the one to report, whether or not the leftover can be removed.
        let _ = fs::remove_file(&partial);
        io(source)
    })
}

impl fmt::Debug for Model {
    /// Without the weights.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn graph_of(proto: &pb::ModelProto) -> Result<&pb::GraphProto> {
    proto.graph.as_ref().ok_or_else(|| Error::Invalid {
        place: "model".into(),
        rule: "it must have a graph, it has none".into(),
    })
}

/// Check the data of every constant, those of nested graphs included.
fn check_constants(graph: &pb::GraphProto) -> Result<()> {
    if let Some(sparse) = graph.sparse_initializer.first() {
        let name = sparse.values.as_ref().map_or("", |values| values.name.as_str());
        return Err(Error::Unsupported {
            place: format!("initialiser `{name}`"),
            what: "a sparse constant".into(),
        });
    }
    for initialiser in &graph.initializer {
        constant_bytes(initialiser, &initialiser.name)?;
    }
    for node in &graph.node {
        for attribute in &node.attribute {
            let name = node.output.first().unwrap_or(&node.name);
            for tensor in attribute.t.iter().chain(&attribute.tensors) {
                constant_bytes(tensor, name)?;
            }
            for nested in attribute.g.iter().chain(&attribute.graphs) {
                check_constants(nested)?;
            }
        }
    }
    Ok(())
}
