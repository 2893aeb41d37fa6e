//! The border: what peers send becomes the model's types or an error that names what is wrong; what
//! the engine says becomes bytes. It holds no state.

pub mod grpc;
mod http;
