//! Who produces a tensor, who reads it, and from where to where in the node order it is needed.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, NodeProto, ValueInfoProto};

use crate::{Error, Result};

/// Operators whose output differs from one call to the next, and so is never a constant.
const RANDOM: [&str; 6] =
    ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"];

/// Where a tensor comes from. Optional inputs that have a default value count as initialisers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Source {
    Input(usize),
    Initialiser(usize),
    Node(usize),
}

/// First and last position in the node order at which a tensor (or a constant node) is needed by a node that
/// depends on the model's input. The model's outputs are read at the position after the last node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Span {
    fn at(position: usize) -> Self {
        Self { first: position, last: position }
    }

    fn join(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// A graph whose rules have been checked, with its flow of data worked out.
pub(crate) struct Graph<'a> {
    pub(crate) proto: &'a GraphProto,
    pub(crate) sources: HashMap<&'a str, Source>,
    /// Of each node: whether it depends on no input of the model.
    constant: Vec<bool>,
    /// Of each node: where it is needed; `None` if no output of the model needs it.
    spans: Vec<Option<Span>>,
    /// Of each tensor that somebody needs: where.
    needs: HashMap<&'a str, Span>,
    /// Of each node: the tensors it reads, those that nested graphs capture included.
    reads: Vec<Vec<&'a str>>,
}

impl<'a> Graph<'a> {
    pub(crate) fn new(proto: &'a GraphProto) -> Result<Self> {
        let mut graph = Self {
            proto,
            sources: sources(proto)?,
            constant: Vec::with_capacity(proto.node.len()),
            spans: vec![None; proto.node.len()],
            needs: HashMap::new(),
            reads: proto.node.iter().map(reads).collect(),
        };
        graph.check_reads()?;
        for (node, reads) in proto.node.iter().zip(&graph.reads) {
            let constant = !is_random(node) && reads.iter().all(|name| graph.is_constant(name));
            graph.constant.push(constant);
        }
        graph.find_spans();
        Ok(graph)
    }

    /// Tensors that a node reads.
    pub(crate) fn reads(&self, position: usize) -> &[&'a str] {
        &self.reads[position]
    }

    /// Position of the model's outputs: after the last node.
    pub(crate) fn end(&self) -> usize {
        self.proto.node.len()
    }

    pub(crate) fn is_constant(&self, name: &str) -> bool {
        match self.sources.get(name) {
            Some(Source::Initialiser(_)) => true,
            Some(&Source::Node(position)) => self.constant.get(position) == Some(&true),
            Some(Source::Input(_)) | None => false,
        }
    }

    /// Where a tensor is needed; `None` if no output of the model depends on it.
    pub(crate) fn span(&self, name: &str) -> Option<Span> {
        self.needs.get(name).copied()
    }

    /// Where a node is needed; `None` if no output of the model depends on it.
    pub(crate) fn node_span(&self, position: usize) -> Option<Span> {
        self.spans.get(position).copied().flatten()
    }

    /// Nodes that depend on the model's input and that an output depends on, in order.
    pub(crate) fn flow(&self) -> impl Iterator<Item = (usize, &'a NodeProto)> {
        let nodes = self.proto.node.iter().enumerate();
        nodes.filter(|&(position, _)| !self.constant[position] && self.spans[position].is_some())
    }

    /// The inputs that have no default value.
    pub(crate) fn data_inputs(&self) -> impl Iterator<Item = &'a ValueInfoProto> {
        self.proto.input.iter().filter(|input| !self.is_constant(&input.name))
    }

    fn check_reads(&self) -> Result<()> {
        for (position, names) in self.reads.iter().enumerate() {
            for &name in names {
                let missing = match self.sources.get(name) {
                    Some(&Source::Node(producer)) => producer >= position,
                    Some(_) => false,
                    None => true,
                };
                if missing {
                    let reader = node_place(position, &self.proto.node[position]);
                    return Err(Error::MissingTensor { name: name.into(), reader });
                }
            }
        }
        let mut listed = HashMap::new();
        for (position, output) in self.proto.output.iter().enumerate() {
            if let Some(earlier) = listed.insert(&output.name, position) {
                let [first, second] = [earlier, position].map(|position| format!("output {position}"));
                return Err(Error::DuplicateName { name: output.name.clone(), first, second });
            }
            if !self.sources.contains_key(output.name.as_str()) {
                return Err(Error::MissingTensor {
                    name: output.name.clone(),
                    reader: "the model's output".into(),
                });
            }
        }
        Ok(())
    }

    /// Walk backward from the outputs. A node of the flow needs what it reads at its own position; a constant
    /// node needs it wherever its own outputs are needed.
    fn find_spans(&mut self) {
        for output in &self.proto.output {
            self.need(&output.name, Span::at(self.end()));
        }
        for (position, node) in self.proto.node.iter().enumerate().rev() {
            let Some(needed) = node.output.iter().filter_map(|name| self.span(name)).reduce(Span::join)
            else {
                continue;
            };
            let span = if self.constant[position] { needed } else { Span::at(position) };
            self.spans[position] = Some(span);
            for read in 0..self.reads[position].len() {
                self.need(self.reads[position][read], span);
            }
        }
    }

    fn need(&mut self, name: &'a str, span: Span) {
        self.needs.entry(name).and_modify(|known| *known = known.join(span)).or_insert(span);
    }
}

/// Every tensor's producer; an error if it has two.
fn sources(proto: &GraphProto) -> Result<HashMap<&str, Source>> {
    let mut sources = HashMap::new();
    for (position, initialiser) in proto.initializer.iter().enumerate() {
        declare(proto, &mut sources, &initialiser.name, Source::Initialiser(position))?;
    }
    let mut seen = HashSet::new();
    for (position, input) in proto.input.iter().enumerate() {
        // An input of the same name as an initialiser is one with a default value; two such inputs are an error.
        let has_default = sources.contains_key(input.name.as_str());
        if !seen.insert(input.name.as_str()) || !has_default {
            declare(proto, &mut sources, &input.name, Source::Input(position))?;
        }
    }
    for (position, node) in proto.node.iter().enumerate() {
        // An empty name stands for an optional output that is left out.
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            declare(proto, &mut sources, name, Source::Node(position))?;
        }
    }
    Ok(sources)
}

fn declare<'a>(
    proto: &GraphProto,
    sources: &mut HashMap<&'a str, Source>,
    name: &'a str,
    source: Source,
) -> Result<()> {
    if name.is_empty() {
        let rule = "it must have a name, it has none".into();
        return Err(Error::Invalid { place: source_place(proto, source), rule });
    }
    match sources.insert(name, source) {
        None => Ok(()),
        Some(first) => Err(Error::DuplicateName {
            name: name.into(),
            first: source_place(proto, first),
            second: source_place(proto, source),
        }),
    }
}

fn source_place(proto: &GraphProto, source: Source) -> String {
    match source {
        Source::Input(position) => format!("input {position}"),
        Source::Initialiser(position) => format!("initialiser {position}"),
        Source::Node(position) => node_place(position, &proto.node[position]),
    }
}

fn node_place(position: usize, node: &NodeProto) -> String {
    match (node.name.as_str(), node.op_type.as_str()) {
        ("", op) => format!("node {position} ({op})"),
        (name, op) => format!("node {position} `{name}` ({op})"),
    }
}

/// Whether a node's output differs from one call to the next.
pub(crate) fn is_random(node: &NodeProto) -> bool {
    node_is_default_domain(node) && RANDOM.contains(&node.op_type.as_str())
}

pub(crate) fn node_is_default_domain(node: &NodeProto) -> bool {
    matches!(node.domain.as_str(), "" | "ai.onnx")
}

/// Tensors a node reads: its inputs, and what the graphs nested in it (branches, loop bodies) take from outside.
fn reads(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<_> = node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    let graphs = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    names.extend(graphs.flat_map(captures));
    names.sort_unstable();
    names.dedup();
    names
}

/// Tensors a nested graph reads and doesn't produce.
fn captures(graph: &GraphProto) -> Vec<&str> {
    let produced = graph.input.iter().map(|input| input.name.as_str());
    let produced = produced.chain(graph.initializer.iter().map(|initialiser| initialiser.name.as_str()));
    let produced = produced.chain(graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str)));
    let produced: HashSet<_> = produced.collect();
    let read = graph.node.iter().flat_map(reads);
    let read = read.chain(graph.output.iter().map(|output| output.name.as_str()));
    read.filter(|name| !produced.contains(name)).collect()
}
