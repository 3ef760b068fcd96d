//! The project's rules about itself: imports, pages, switches, contract documents.

mod architecture;
mod contract_documents;
mod imports;
mod protocol_page;
mod redis_rights;
mod requirements;
mod switches;
