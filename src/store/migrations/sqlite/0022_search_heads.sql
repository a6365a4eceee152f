-- The index has the beginnings of words of four letters. Everything is indexed again.
update searchable set since = version;
