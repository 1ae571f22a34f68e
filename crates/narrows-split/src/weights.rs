//! The weights of a model: its float initialisers, read for packing, and put back as they were or as small integers.

use std::collections::HashMap;

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

use crate::{Error, Model, Result};

/// From this version of the operators on a scale may belong to a channel.
const PER_CHANNEL_SINCE: i64 = 13;
/// From this version on there is `DequantizeLinear`.
const QUANTISED_SINCE: i64 = 10;

/// A float initialiser of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Its name.
    pub name: String,
    /// Its axes.
    pub shape: Vec<usize>,
    /// Bytes of an element: 4 for `float32`, 2 for `float16`.
    pub element_bytes: usize,
    /// Its elements, little-endian, in row-major order.
    pub bytes: Vec<u8>,
}

/// What takes the place of an initialiser's elements.
#[derive(Clone, Debug, PartialEq)]
pub enum NewWeight {
    /// Other floats.
    Float32(Vec<f32>),
    /// Integers from -127 to 127, times a scale: one, or one for each index of the first axis.
    Int8 {
        /// The integers.
        values: Vec<i8>,
        /// The scales.
        scales: Vec<f32>,
    },
}

impl Model {
    /// All `float32` and `float16` initialisers, in the file's order.
    pub fn weights(&self) -> Vec<Weight> {
        let all = self.proto().graph.iter().flat_map(|graph| &graph.initializer);
        all.filter_map(weight).collect()
    }

    /// The same model with other elements for some of its initialisers.
    ///
    /// Integers become a constant of type `int8` and a `DequantizeLinear` whose output has the initialiser's name, so that
    /// nothing else of the graph changes.
    ///
    /// # Errors
    /// [`Error::NoSuchWeight`] for a name that is no float initialiser; [`Error::ConstantSize`] for elements or scales that
    /// are not as many as its shape says; [`Error::Unsupported`] for integers in a model whose version of the operators has
    /// no `DequantizeLinear` (10), or none by channel (13).
    pub fn with_weights(&self, new: &HashMap<String, NewWeight>) -> Result<Self> {
        let mut proto = self.proto().clone();
        let version = proto.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
        let version = version.map_or(1, |set| set.version);
        if let Some(graph) = &mut proto.graph {
            replace(graph, new, version)?;
        }
        Self::from_proto(proto)
    }
}

fn weight(tensor: &TensorProto) -> Option<Weight> {
    let element_bytes = match DataType::try_from(tensor.data_type).ok()? {
        DataType::Float => 4,
        DataType::Float16 => 2,
        _ => return None,
    };
    let bytes = match (tensor.raw_data.is_empty(), element_bytes) {
        (false, _) => tensor.raw_data.clone(),
        (true, 4) => tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        // Halves that are not raw are kept in the low bits of integers.
        (true, _) => tensor.int32_data.iter().flat_map(|&bits| (bits as u16).to_le_bytes()).collect(),
    };
    let shape = tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
    Some(Weight { name: tensor.name.clone(), shape, element_bytes, bytes })
}

fn replace(graph: &mut GraphProto, new: &HashMap<String, NewWeight>, version: i64) -> Result<()> {
    let known = |name: &String| graph.initializer.iter().any(|i| i.name == *name && weight(i).is_some());
    if let Some(name) = new.keys().find(|name| !known(name)) {
        return Err(Error::NoSuchWeight { name: name.clone() });
    }
    let (mut nodes, mut added) = (Vec::new(), Vec::new());
    for initialiser in &mut graph.initializer {
        let Some(new) = new.get(&initialiser.name) else { continue };
        let is_half = initialiser.data_type == DataType::Float16 as i32;
        match new {
            NewWeight::Float32(values) => {
                check(initialiser, values.len())?;
                let name = std::mem::take(&mut initialiser.name);
                *initialiser = tensor(&name, &initialiser.dims, DataType::Float, floats(values));
                if is_half {
                    let wide = format!("{name}.float32");
                    initialiser.name.clone_from(&wide);
                    nodes.push(to_half(&wide, &name));
                }
            }
            NewWeight::Int8 { values, scales } => {
                check(initialiser, values.len())?;
                check_scales(initialiser, scales.len(), version)?;
                let (name, dims) = (initialiser.name.clone(), initialiser.dims.clone());
                let float = if is_half { format!("{name}.float32") } else { name.clone() };
                let [own, scale, zero] = ["int8", "scale", "zero"].map(|part| format!("{name}.{part}"));
                // Equal scales are one: that of the whole tensor.
                let one = scales.iter().all(|scale| *scale == scales[0]);
                let count = if one { 1 } else { scales.len() };
                let shape: &[i64] = if one { &[] } else { &dims[..1] };
                added.push(tensor(&scale, shape, DataType::Float, floats(&scales[..count])));
                added.push(tensor(&zero, shape, DataType::Int8, vec![0; count]));
                nodes.push(dequantize([&own, &scale, &zero], &float, one));
                if is_half {
                    nodes.push(to_half(&float, &name));
                }
                let bytes = values.iter().map(|&value| value as u8).collect();
                *initialiser = tensor(&own, &dims, DataType::Int8, bytes);
            }
        }
    }
    // Older files list initialisers among the inputs, as defaults.
    graph.input.retain(|input| !new.contains_key(&input.name));
    graph.initializer.extend(added);
    nodes.append(&mut graph.node);
    graph.node = nodes;
    Ok(())
}

fn check(initialiser: &TensorProto, found: usize) -> Result<()> {
    let expected = initialiser.dims.iter().product::<i64>();
    let (name, found) = (initialiser.name.clone(), found as u64);
    let expected = u64::try_from(expected).unwrap_or(0);
    if found == expected { Ok(()) } else { Err(Error::ConstantSize { name, expected, found }) }
}

fn check_scales(initialiser: &TensorProto, scales: usize, version: i64) -> Result<()> {
    let rows = initialiser.dims.first().map_or(1, |&rows| usize::try_from(rows).unwrap_or(0));
    if scales != 1 && scales != rows {
        let name = format!("{}.scale", initialiser.name);
        return Err(Error::ConstantSize { name, expected: rows as u64, found: scales as u64 });
    }
    let since = if scales == 1 { QUANTISED_SINCE } else { PER_CHANNEL_SINCE };
    if version >= since {
        return Ok(());
    }
    let what = format!("integers in a model of operator version {version}, before {since},");
    Err(Error::Unsupported { place: format!("initialiser `{}`", initialiser.name), what })
}

fn tensor(name: &str, dims: &[i64], dtype: DataType, bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: dtype as i32,
        raw_data: bytes,
        ..TensorProto::default()
    }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn node(op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        name: format!("{output}.{op}"),
        op_type: op.into(),
        input: inputs.iter().map(|&input| input.into()).collect(),
        output: vec![output.into()],
        attribute: attributes,
        ..NodeProto::default()
    }
}

fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..AttributeProto::default()
    }
}

fn dequantize(inputs: [&str; 3], output: &str, whole: bool) -> NodeProto {
    let axis = if whole { Vec::new() } else { vec![integer("axis", 0)] };
    node("DequantizeLinear", &inputs, output, axis)
}

fn to_half(input: &str, output: &str) -> NodeProto {
    node("Cast", &[input], output, vec![integer("to", DataType::Float16 as i64)])
}
