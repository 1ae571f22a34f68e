//! Small ONNX models, built field by field.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::path::PathBuf;

use narrows_split::Model;
use prost::Message as _;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, type_proto,
};

/// The demo network, or another file of the same structure named by `NARROWS_DEMO_MODEL`.
pub fn demo_model() -> Model {
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/model.onnx");
    let path = std::env::var_os("NARROWS_DEMO_MODEL").map_or_else(|| PathBuf::from(committed), PathBuf::from);
    Model::read(path).unwrap()
}

/// Numbers in -1..1 from a linear congruential generator (Knuth's MMIX).
pub fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[derive(Default)]
pub struct Build(pub GraphProto);

impl Build {
    pub fn input(mut self, name: &str, dims: &[i64]) -> Self {
        self.0.input.push(value_info(name, dims));
        self
    }

    pub fn output(mut self, name: &str, dims: &[i64]) -> Self {
        self.0.output.push(value_info(name, dims));
        self
    }

    pub fn note(mut self, name: &str, dims: &[i64]) -> Self {
        self.0.value_info.push(value_info(name, dims));
        self
    }

    /// Random weights, small enough for a product not to blow up.
    pub fn weight(mut self, name: &str, dims: &[i64]) -> Self {
        let count = dims.iter().product::<i64>() as usize;
        let values = random(count, self.0.initializer.len() as u64);
        self.0.initializer.push(floats(name, dims, values));
        self
    }

    pub fn constant(mut self, name: &str, dims: &[i64], values: &[i64]) -> Self {
        self.0.initializer.push(TensorProto {
            name: name.into(),
            dims: dims.into(),
            data_type: DataType::Int64 as i32,
            int64_data: values.into(),
            ..TensorProto::default()
        });
        self
    }

    /// `node("Add", "a b -> c")`
    pub fn node(self, op: &str, flow: &str) -> Self {
        self.node_with(op, flow, vec![])
    }

    pub fn node_with(mut self, op: &str, flow: &str, attribute: Vec<AttributeProto>) -> Self {
        let (inputs, outputs) = flow.split_once("->").unwrap();
        let names = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        self.0.node.push(NodeProto {
            op_type: op.into(),
            input: names(inputs),
            output: names(outputs),
            attribute,
            ..NodeProto::default()
        });
        self
    }

    pub fn proto(self) -> ModelProto {
        ModelProto {
            ir_version: 8,
            producer_name: "narrows tests".into(),
            producer_version: "1".into(),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
            metadata_props: vec![StringStringEntryProto { key: "author".into(), value: "nobody".into() }],
            graph: Some(GraphProto { name: "tiny".into(), ..self.0 }),
            ..ModelProto::default()
        }
    }

    pub fn bytes(self) -> Vec<u8> {
        self.proto().encode_to_vec()
    }

    pub fn model(self) -> Model {
        Model::from_bytes(&self.bytes()).unwrap()
    }
}

/// A dimension of -1 is an open one named `batch`.
fn value_info(name: &str, dims: &[i64]) -> ValueInfoProto {
    let value = |&dim: &i64| if dim < 0 { Value::DimParam("batch".into()) } else { Value::DimValue(dim) };
    let dims = dims.iter().map(|dim| Dimension { value: Some(value(dim)), ..Dimension::default() });
    let tensor = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(TensorShapeProto { dim: dims.collect() }),
    };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
}

pub fn floats(name: &str, dims: &[i64], values: Vec<f32>) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.into(),
        data_type: DataType::Float as i32,
        float_data: values,
        ..TensorProto::default()
    }
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..AttributeProto::default() }
}

pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    let r#type = AttributeType::Ints as i32;
    AttributeProto { name: name.into(), r#type, ints: ints.into(), ..AttributeProto::default() }
}

pub fn tensor(name: &str, tensor: TensorProto) -> AttributeProto {
    let r#type = AttributeType::Tensor as i32;
    AttributeProto { name: name.into(), r#type, t: Some(tensor), ..AttributeProto::default() }
}

/// x -> Relu -> a -> `MatMul` -> b; a + b -> c -> Relu -> y
pub fn residual() -> Build {
    Build::default()
        .input("x", &[1, 2])
        .weight("w", &[2, 2])
        .node("Relu", "x -> a")
        .node("MatMul", "a w -> b")
        .node("Add", "a b -> c")
        .node("Relu", "c -> y")
        .output("y", &[1, 2])
}
