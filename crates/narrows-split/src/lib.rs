//! Split an ONNX model in two, and run the halves.
//!
//! # What a cut is
//!
//! A network is a graph of operators. Its data flow from the input to the output, and anywhere on the way some
//! tensors are *live*: already computed, and still needed further on. Where exactly one tensor is live, the rest
//! of the network depends on the input through that tensor alone. Such a tensor is a [`Cut`]: run the operators
//! up to it (the *head*) on one machine, send the tensor, and run the others (the *tail*) elsewhere.
//!
//! In a residual unit `y = relu(x + f(x))`, `x` is a cut and `y` is a cut, but nothing inside `f` is: as long as `f`
//! is being computed `x` must be remembered for the addition, so two tensors are live. Weights don't count. They
//! are known to both sides beforehand and never travel.
//!
//! [`cuts()`] lists the cuts of a [`Model`] with what matters for the choice between them: the bytes to send, and
//! the multiply-adds and weights on either side. [`split()`] makes a head and a tail, each a complete ONNX model,
//! and an [`Engine`] runs any of the three.
//!
//! ```
//! use narrows_split::{Engine, Model, Place, cuts, split};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/residual.onnx");
//! let model = Model::read(path)?; // x -> Relu -> a -> MatMul -> b; a + b -> c -> Relu -> y
//! let names: Vec<_> = cuts(&model)?.into_iter().map(|cut| (cut.place, cut.name)).collect();
//! assert_eq!(names[0], (Place::Input, "x".into()));
//! assert_eq!(names[1], (Place::Inner, "a".into()));
//! assert_eq!(names[2], (Place::Inner, "c".into())); // `b` is no cut: `a` is still needed
//! assert_eq!(names[3], (Place::Output, "y".into()));
//!
//! let halves = split(&model, "a")?;
//! let sent = Engine::load(&halves.head)?.run(&[1.0, -2.0])?;
//! let y = Engine::load(&halves.tail)?.run(&sent)?;
//! assert_eq!(y, Engine::load(&model)?.run(&[1.0, -2.0])?);
//! # Ok::<(), narrows_split::Error>(())
//! ```

#![forbid(unsafe_code)]

mod analysis;
mod compare;
mod constant;
mod cuts;
mod engine;
mod error;
mod graph;
mod manifest;
mod model;
mod open_dims;
mod pack;
mod seam;
mod session;
mod sizes;
mod split;
mod state;
mod value;
mod weights;

pub use compare::{Difference, compare, random_inputs};
pub use cuts::{Cut, Place, Side, cuts, cuts_for, offered};
pub use engine::{Backend, Engine, Optimisation, Port, Runtime, inputs, outputs};
pub use error::{Error, Result};
pub use manifest::{Checked, Class, Described, Half, MANIFEST, Manifest, Size};
pub use model::Model;
pub use seam::Origin;
pub use session::Session;
pub use sizes::{Dim, Sizes};
pub use split::{Split, Splitter, split};
pub use state::{State, states};
pub use value::{Data, ElementType, Value};
pub use weights::{NewWeight, Weight};
