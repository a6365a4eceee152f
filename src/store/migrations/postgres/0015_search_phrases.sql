-- The index has the beginnings of words of four letters, and each word with the next one instead of where the
-- words are. Everything is indexed again.
update searchable set since = version;
