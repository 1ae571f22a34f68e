use std::collections::HashMap;
use std::fmt;

use crate::sizes::Dim;
use crate::state::states;
use crate::value::Value;
use crate::{Engine, Error, Model, Port, Result, Runtime};

/// An engine with the state of one conversation: the key-value caches of a decoder, for instance.
///
/// Tensors go in and come out by name; state is kept here, and seen by nobody. A model without state runs as well.
#[derive(Clone)]
pub struct Session {
    engine: Engine,
    /// Of each state: the positions of its input and its output, and what it holds after a step.
    states: Vec<(usize, usize, Option<Value>)>,
}

impl Session {
    /// Prepare a model, or half of one, with empty state.
    ///
    /// # Errors
    /// As [`Engine::load_on`].
    pub fn new(model: &Model, runtime: Runtime) -> Result<Self> {
        let engine = Engine::load_on(model, runtime)?;
        let position = |ports: &[Port], name: &str| ports.iter().position(|port| port.name == name);
        let states = states(model)?.into_iter().filter_map(|state| {
            Some((position(engine.inputs(), &state.input)?, position(engine.outputs(), &state.output)?, None))
        });
        Ok(Self { states: states.collect(), engine })
    }

    /// Run the model once: every input but state by name, every output but state in order. State is what the step before
    /// has left, and after an error still is.
    ///
    /// # Errors
    /// [`Error::InputNames`] if the names are not those of the inputs, else as [`Engine::infer`].
    pub fn step(&mut self, inputs: &[(&str, &Value)]) -> Result<Vec<(String, Value)>> {
        let given: HashMap<&str, &Value> = inputs.iter().copied().collect();
        let is_given = |port: &Port| given.contains_key(port.name.as_str());
        if given.len() != self.inputs().count() || !self.inputs().all(is_given) {
            let expected = self.inputs().map(|port| port.name.clone()).collect();
            let found = inputs.iter().map(|(name, _)| (*name).to_owned()).collect();
            return Err(Error::InputNames { expected, found });
        }
        let ports = self.engine.inputs();
        let empty = self.empty(&given)?;
        let all = ports.iter().enumerate().map(|(input, port)| match given.get(port.name.as_str()) {
            Some(value) => *value,
            None => self
                .states
                .iter()
                .find(|state| state.0 == input)
                .and_then(|state| state.2.as_ref())
                .unwrap_or(&empty[input]),
        });
        let outputs = self.engine.infer(&all.collect::<Vec<_>>())?;
        let mut left = Vec::new();
        for (output, value) in outputs.into_iter().enumerate() {
            match self.states.iter_mut().find(|state| state.1 == output) {
                Some(state) => state.2 = Some(value),
                None => left.push((self.engine.outputs()[output].name.clone(), value)),
            }
        }
        Ok(left)
    }

    /// The inputs that [`step`](Self::step) takes, in order.
    pub fn inputs(&self) -> impl Iterator<Item = &Port> {
        let is_state = |input: usize| self.states.iter().any(|state| state.0 == input);
        let inputs = self.engine.inputs().iter().enumerate();
        inputs.filter(move |(input, _)| !is_state(*input)).map(|(_, port)| port)
    }

    /// The outputs that [`step`](Self::step) gives, in order.
    pub fn outputs(&self) -> impl Iterator<Item = &Port> {
        let is_state = |output: usize| self.states.iter().any(|state| state.1 == output);
        let outputs = self.engine.outputs().iter().enumerate();
        outputs.filter(move |(output, _)| !is_state(*output)).map(|(_, port)| port)
    }

    /// Whether the model has state.
    pub const fn has_state(&self) -> bool {
        !self.states.is_empty()
    }

    /// Forget all state.
    pub fn reset(&mut self) {
        self.states.iter_mut().for_each(|state| state.2 = None);
    }

    /// Bytes of state held.
    pub fn state_bytes(&self) -> usize {
        self.states.iter().filter_map(|state| state.2.as_ref()).map(Value::bytes).sum()
    }

    /// State held, with the names of its outputs.
    pub fn state(&self) -> impl Iterator<Item = (&str, &Value)> {
        let outputs = self.engine.outputs();
        self.states.iter().filter_map(|state| Some((outputs[state.1].name.as_str(), state.2.as_ref()?)))
    }

    /// What runs the model.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Before the first step, state is empty: no longer than 0 where it grows.
    fn empty(&self, given: &HashMap<&str, &Value>) -> Result<Vec<Value>> {
        let mut sizes = HashMap::new();
        for port in self.engine.inputs() {
            if let Some(value) = given.get(port.name.as_str()) {
                sizes.extend(port.dims.iter().zip(value.shape()));
            }
        }
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Open(_) => sizes.get(dim).map_or(0, |size| **size),
        };
        let ports = self.engine.inputs().iter();
        let empty = ports.map(|port| {
            let shape: Vec<usize> = port.dims.iter().map(size).collect();
            if given.contains_key(port.name.as_str()) {
                return Value::zeros([0], port.element_type);
            }
            Value::zeros(shape, port.element_type)
        });
        empty.collect()
    }
}

impl fmt::Debug for Session {
    /// Without weights and state.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("engine", &self.engine).field("states", &self.states.len()).finish()
    }
}
