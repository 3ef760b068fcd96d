//! The project's rules about itself: imports, pages, switches, contract documents.

mod architecture;
mod contract_documents;
mod imports;
mod requirements;
mod switches;
