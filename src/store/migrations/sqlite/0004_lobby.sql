-- The groups with the most people first, without looking through all of them.
create index rooms_busiest on rooms (people desc, name_key) where kind = 'group';
