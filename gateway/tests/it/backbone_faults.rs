//! What the backbone does when Redis dies, freezes, forgets, or holds what others wrote.
