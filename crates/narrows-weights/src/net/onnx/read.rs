//! From the nodes of a graph to a network.

use std::collections::HashMap;

use prost::bytes::Bytes;

use super::LayerWeights;
use super::attributes::Attributes;
use super::constant::Constants;
use super::error::{OnnxError as Error, Result};
use super::proto::{Graph, Node};
use crate::net::network::{Convolution, Kind, Layer, Network, Op, Step};

pub fn network(graph: &Graph, file: &Bytes) -> Result<(Network, Vec<LayerWeights>)> {
    let constants = Constants::of(graph, file);
    let inputs: Vec<_> = graph.inputs.iter().filter(|input| !constants.contains(&input.name)).collect();
    let ([input], [output]) = (inputs.as_slice(), graph.outputs.as_slice()) else {
        let rule =
            format!("{} inputs and {} outputs, one of each is wanted", inputs.len(), graph.outputs.len());
        return Err(Error::InvalidModel { place: "the graph".into(), rule });
    };
    let dims = input.kind.as_ref().and_then(|kind| kind.tensor.as_ref()?.shape.as_ref());
    let dims: Vec<i64> =
        dims.map(|shape| shape.dims.iter().map(|dim| dim.value).collect()).unwrap_or_default();
    let image = match dims[..] {
        [_, channels, height, width] if [channels, height, width].iter().all(|n| (1..=4096).contains(n)) => {
            [channels as usize, height as usize, width as usize]
        }
        _ => {
            let rule =
                format!("its shape is {dims:?}, wanted is [batch, channels, height, width] up to 4096 each");
            return Err(Error::InvalidModel { place: format!("input `{}`", input.name), rule });
        }
    };
    let mut reader = Reader {
        constants,
        values: HashMap::from([(input.name.as_str(), (0, image))]),
        network: Network::new(image),
        weights: Vec::new(),
    };
    for node in graph.nodes.iter().filter(|node| node.op != "Constant") {
        reader.node(node)?;
    }
    let last = reader.values.get(output.name.as_str()).copied();
    let Some((value, [classes, 1, 1])) = last else {
        let rule = format!("output `{}` is {last:?}, wanted is one number for each class", output.name);
        return Err(Error::InvalidModel { place: "the graph".into(), rule });
    };
    let Reader { mut network, weights, .. } = reader;
    network.finish(value, classes);
    Ok((network, weights))
}

/// Which value it is, and its channels, height and width.
type Value = (usize, [usize; 3]);

struct Reader<'a> {
    constants: Constants<'a>,
    values: HashMap<&'a str, Value>,
    network: Network,
    weights: Vec<LayerWeights>,
}

impl<'a> Reader<'a> {
    fn node(&mut self, node: &'a Node) -> Result<()> {
        let of = Attributes(node);
        let first = self.value(node, 0)?;
        let (op, shape) = match node.op.as_str() {
            "Conv" => self.convolution(node, first.1)?,
            "Gemm" => self.linear(node, first.1)?,
            "Relu" => (Op::Relu, first.1),
            "Add" if self.values.contains_key(node.inputs.get(1).map_or("", String::as_str)) => {
                return self.sum(node, first);
            }
            "Add" => (Op::Shift(self.number(node)?), first.1),
            "Sub" => (Op::Shift(-self.number(node)?), first.1),
            "Mul" => (Op::Scale(self.number(node)?), first.1),
            "Div" => (Op::Scale(self.number(node)?.recip()), first.1),
            "GlobalAveragePool" => (Op::MeanPool, [first.1[0], 1, 1]),
            "ReduceMean" if of.ints("axes") == [2, 3] || of.ints("axes") == [-1, -2] => {
                (Op::MeanPool, [first.1[0], 1, 1])
            }
            "MaxPool" => pooling(&of, first.1)?,
            "Flatten" if of.int("axis", 1) == 1 => (Op::Flatten, [first.1.iter().product(), 1, 1]),
            _ => return Err(of.unsupported(format!("operator {}", node.op))),
        };
        self.push(node, op, vec![first.0], shape)
    }

    fn sum(&mut self, node: &'a Node, first: Value) -> Result<()> {
        let second = self.value(node, 1)?;
        if first.1 != second.1 {
            return Err(Attributes(node).unsupported(format!("a sum of {:?} and {:?}", first.1, second.1)));
        }
        self.push(node, Op::Add, vec![first.0, second.0], first.1)
    }

    fn push(&mut self, node: &'a Node, op: Op, inputs: Vec<usize>, shape: [usize; 3]) -> Result<()> {
        let [output] = node.outputs.as_slice() else {
            return Err(Attributes(node).unsupported(format!("{} outputs", node.outputs.len())));
        };
        let value = self.network.push(Step { op, inputs });
        match self.values.insert(output, (value, shape)) {
            None => Ok(()),
            Some(_) => Err(Attributes(node).invalid(format!("`{output}` is produced twice"))),
        }
    }

    fn value(&self, node: &'a Node, index: usize) -> Result<Value> {
        let name = node.inputs.get(index).map_or("", String::as_str);
        let value = self.values.get(name).copied();
        value.ok_or_else(|| {
            Attributes(node).invalid(format!("it reads `{name}`, which nothing before it computes"))
        })
    }

    /// The constant, a single number, that is the second operand.
    fn number(&self, node: &Node) -> Result<f32> {
        match self.constants.values(node.inputs.get(1).map_or("", String::as_str))?[..] {
            [number] => Ok(number),
            ref many => Err(Attributes(node).unsupported(format!("an operand of {} numbers", many.len()))),
        }
    }

    fn convolution(
        &mut self,
        node: &Node,
        [channels, height, width]: [usize; 3],
    ) -> Result<(Op, [usize; 3])> {
        let of = Attributes(node);
        let shape = self.layer_shape(node)?;
        let &[outputs, inputs, y, x] = shape.as_slice() else {
            return Err(of.unsupported(format!("weights of shape {shape:?}")));
        };
        if of.int("group", 1) != 1 || of.pair("dilations", 1)? != [1, 1] {
            return Err(of.unsupported("a grouped or dilated convolution".into()));
        }
        if inputs != channels {
            return Err(of.invalid(format!("{inputs} input channels, its input has {channels}")));
        }
        let window = Convolution { kernel: [y, x], stride: of.pair("strides", 1)?, padding: of.padding()? };
        let positions = window.positions([height, width]);
        let positions =
            positions.ok_or_else(|| of.invalid(format!("no window fits into {height}x{width}")))?;
        let layer = self.layer(node, shape, Kind::Convolution(window))?;
        Ok((Op::Layer(layer), [outputs, positions[0], positions[1]]))
    }

    fn linear(&mut self, node: &Node, input: [usize; 3]) -> Result<(Op, [usize; 3])> {
        let of = Attributes(node);
        let shape = self.layer_shape(node)?;
        let plain = of.int("transA", 0) == 0 && of.float("alpha", 1.0) == 1.0 && of.float("beta", 1.0) == 1.0;
        let &[outputs, inputs] = shape.as_slice() else {
            return Err(of.unsupported(format!("weights of shape {shape:?}")));
        };
        if !plain || of.int("transB", 0) != 1 {
            return Err(of.unsupported("a product other than X W^T + b".into()));
        }
        if [inputs, 1, 1] != input {
            return Err(of.invalid(format!("{inputs} inputs, there are {input:?}")));
        }
        let layer = self.layer(node, shape, Kind::Linear)?;
        Ok((Op::Layer(layer), [outputs, 1, 1]))
    }

    fn layer_shape(&self, node: &Node) -> Result<Vec<usize>> {
        match node.inputs.as_slice() {
            [_, weights, bias] if !bias.is_empty() => self.constants.shape(weights),
            _ => Err(Attributes(node).unsupported("a layer without bias".into())),
        }
    }

    fn layer(&mut self, node: &Node, shape: Vec<usize>, kind: Kind) -> Result<usize> {
        let [name, bias] = [&node.inputs[1], &node.inputs[2]];
        let (weights, biases) = (self.constants.values(name)?, self.constants.values(bias)?);
        if biases.len() != shape[0] {
            return Err(Attributes(node).invalid(format!(
                "{} biases for {} outputs",
                biases.len(),
                shape[0]
            )));
        }
        if self.network.layers().iter().any(|layer| &layer.name == name || &layer.bias == bias) {
            return Err(Attributes(node).unsupported(format!("`{name}` or `{bias}` shared by two layers")));
        }
        let places = [self.constants.place(name)?, self.constants.place(bias)?];
        self.weights.push(LayerWeights { weights, biases, places });
        Ok(self.network.push_layer(Layer { name: name.clone(), bias: bias.clone(), shape, kind }))
    }
}

fn pooling(of: &Attributes<'_>, [channels, height, width]: [usize; 3]) -> Result<(Op, [usize; 3])> {
    let plain = of.int("ceil_mode", 0) == 0 && of.pair("dilations", 1)? == [1, 1];
    // A window that lies in the padding alone has no greatest value.
    let [kernel, padding] = [of.pair("kernel_shape", 1)?, of.padding()?];
    let plain = plain && kernel.iter().zip(padding).all(|(&kernel, padding)| padding < kernel);
    let window = Convolution { kernel, stride: of.pair("strides", 1)?, padding };
    match window.positions([height, width]) {
        Some([y, x]) if plain => Ok((Op::MaxPool(window), [channels, y, x])),
        _ => Err(of.unsupported("dilated, rounded-up or far-padded pooling".into())),
    }
}
