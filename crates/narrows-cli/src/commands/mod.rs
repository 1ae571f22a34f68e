//! One module for each command: its arguments and what it does with them.

pub mod bench;
pub mod calibrate;
pub mod choose;
pub mod completions;
pub mod cuts;
pub mod decode;
pub mod demo;
pub mod embed;
pub mod encode;
pub mod eval;
pub mod generate;
pub mod inspect;
pub mod link;
pub mod pack;
pub mod plan;
pub mod run;
pub mod serve;
pub mod split;
#[cfg(feature = "train")]
pub mod train;
pub mod unpack;
