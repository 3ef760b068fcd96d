//! The front ends of the seed documents, each with the frames and endpoints that its document shows.

mod canonical;
mod channels;
mod channels_frames;
mod channels_large;
mod dialects;
mod five_front_ends;
mod listings;
mod listings_architecture;
mod social;
mod social_late;
mod social_socket;
