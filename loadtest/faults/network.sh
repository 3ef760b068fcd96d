undo_network() { :; }
