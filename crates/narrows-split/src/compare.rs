//! Whether two halves do what the whole does, and inputs to find out with.

use std::collections::HashMap;

use crate::analysis::{checked_elements, input_shapes};
use crate::graph::{Graph, Source};
use crate::sizes::Sizes;
use crate::state::pairs;
use crate::value::{Data, ElementType, Value};
use crate::{Engine, Error, Model, Result};

/// How what two halves give differs from what the whole gives, over all outputs and all state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Elements that are not the same bit for bit.
    pub elements: usize,
    /// The largest difference between two numbers; infinite if one of them is no number.
    pub largest: f32,
    /// The largest of the whole's outputs, for comparison.
    pub scale: f32,
}

impl Difference {
    /// The larger one in every respect.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            elements: self.elements.max(other.elements),
            largest: self.largest.max(other.largest),
            scale: self.scale.max(other.scale),
        }
    }

    /// The largest difference as a share of the largest output.
    pub fn relative(self) -> f32 {
        if self.largest == 0.0 { 0.0 } else { self.largest / self.scale.max(f32::MIN_POSITIVE) }
    }
}

/// Run `inputs` through the whole and through both halves, the payload uncompressed, and compare every output and all
/// state.
///
/// # Errors
/// As [`Engine::infer`], and [`Error::InputNames`] if the halves are not halves of the whole.
pub fn compare(whole: &Engine, head: &Engine, tail: &Engine, inputs: &[Value]) -> Result<Difference> {
    let mut known: HashMap<String, Value> = HashMap::new();
    for (port, value) in whole.inputs().iter().zip(inputs) {
        known.insert(port.name.clone(), value.clone());
    }
    let expected = run(whole, &known)?;
    for half in [head, tail] {
        let given = run(half, &known)?;
        known.extend(half.outputs().iter().map(|port| port.name.clone()).zip(given));
    }
    let mut difference = Difference::default();
    for (port, expected) in whole.outputs().iter().zip(&expected) {
        let found = known.get(&port.name).ok_or_else(|| missing(tail, &port.name))?;
        difference = difference.max(differing(expected, found));
    }
    Ok(difference)
}

fn run(engine: &Engine, known: &HashMap<String, Value>) -> Result<Vec<Value>> {
    let inputs =
        engine.inputs().iter().map(|port| known.get(&port.name).ok_or_else(|| missing(engine, &port.name)));
    engine.infer(&inputs.collect::<Result<Vec<_>>>()?)
}

fn missing(engine: &Engine, name: &str) -> Error {
    let expected = engine.inputs().iter().map(|port| port.name.clone()).collect();
    Error::InputNames { expected, found: vec![format!("nothing that makes {name}")] }
}

fn differing(expected: &Value, found: &Value) -> Difference {
    if expected.is_identical(found) {
        let largest = |values: &[f32]| values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        return Difference { scale: expected.f32().map_or(0.0, largest), ..Difference::default() };
    }
    let (Some(left), Some(right), true) = (expected.f32(), found.f32(), expected.shape() == found.shape())
    else {
        return Difference { elements: usize::MAX, largest: f32::INFINITY, scale: 0.0 };
    };
    let mut difference = Difference::default();
    for (left, right) in left.iter().zip(right) {
        difference.scale = difference.scale.max(left.abs());
        if left.to_bits() != right.to_bits() {
            difference.elements += 1;
            let apart = (left - right).abs();
            difference.largest = difference.largest.max(if apart.is_nan() { f32::INFINITY } else { apart });
        }
    }
    difference
}

/// Random inputs that a model can compute with, in the order of its inputs.
///
/// `float32` inputs are uniform in -1..1. Integers are chosen by what they are for: indices into a table are below its
/// length, positions (by name) count on from the length of the state, masks (by name, or truth values) let everything
/// through, and others are 0 or 1.
///
/// # Errors
/// [`Error::UnknownShape`], [`Error::LimitExceeded`], [`Error::NoSuchDimension`], and [`Error::Unsupported`] for an input of
/// another type.
pub fn random_inputs(model: &Model, sizes: &Sizes, seed: u64) -> Result<Vec<Value>> {
    let graph = model.graph()?;
    let shapes = input_shapes(&graph, &sizes.resolve(&graph)?)?;
    let states = pairs(&graph);
    // A cache is [batch, heads, length, features].
    let state = shapes.iter().find(|(name, _)| states.iter().any(|state| state.input == *name));
    let past = state.and_then(|(_, shape)| shape.iter().rev().nth(1)).copied().unwrap_or(0);
    let mut numbers = Numbers(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let values = graph.data_inputs().zip(shapes).map(|(info, (name, shape))| {
        let count = checked_elements(name, &shape)?;
        let dtype = crate::analysis::declared_dtype(info).map_or("unknown", |dtype| dtype.name);
        let data: Data = match ElementType::of_name(dtype) {
            Some(ElementType::F32) => (0..count).map(|_| numbers.uniform()).collect::<Vec<f32>>().into(),
            Some(ElementType::Bool) => vec![true; count].into(),
            Some(ElementType::I64) if name.contains("mask") => vec![1_i64; count].into(),
            Some(ElementType::I64) if name.contains("position") => {
                let length = shape.last().copied().unwrap_or(1).max(1);
                (0..count).map(|at| (past + at % length) as i64).collect::<Vec<_>>().into()
            }
            Some(ElementType::I64) => {
                let bound = table_length(&graph, name).unwrap_or(2).max(1);
                (0..count).map(|_| (numbers.next() % bound) as i64).collect::<Vec<_>>().into()
            }
            None => {
                let place = format!("input `{name}`");
                return Err(Error::Unsupported { place, what: format!("element type {dtype}") });
            }
        };
        Value::new(shape, data)
    });
    values.collect()
}

/// Rows of the smallest table that an input indexes.
fn table_length(graph: &Graph<'_>, input: &str) -> Option<u64> {
    let gathers = graph
        .proto
        .node
        .iter()
        .filter(|node| node.op_type == "Gather" && node.input.get(1).is_some_and(|index| index == input));
    let rows = gathers.filter_map(|node| match graph.sources.get(node.input.first()?.as_str())? {
        Source::Initialiser(position) => {
            u64::try_from(*graph.proto.initializer[*position].dims.first()?).ok()
        }
        _ => None,
    });
    rows.min()
}

/// A linear congruential generator (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn uniform(&mut self) -> f32 {
        (self.next() >> 7) as f32 / (1_u32 << 23) as f32 - 1.0
    }
}
