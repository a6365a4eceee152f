-- Lists the groups with the most people without reading all groups.
create index rooms_busiest on rooms (people desc, name_key) where kind = 'group';
