//! What a neural network costs on paper and on silicon, and why the two differ.

pub mod analysis;
pub mod budget;
pub mod cli;
pub mod config;
pub mod cost;
pub mod engine;
pub mod error;
pub mod files;
pub mod formula;
pub mod ir;
pub mod kernels;
pub mod lens;
pub mod machine;
pub mod measure;
pub mod onnx;
pub mod ops;
pub mod report;
pub mod simd;
pub mod tensor;
pub mod units;
pub mod variants;
pub mod zoo;
