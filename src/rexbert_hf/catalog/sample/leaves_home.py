"""Leaves of the sample shop: home improvement, kitchen, garden, office. See `vocabulary` for the notation."""

from __future__ import annotations

LEAVES = """
# Home Improvement > Power Tools > Drills | 39-259 | Drill Bits; Ladders
type: cordless drill; hammer drill; drill driver
voltage: 12 V; 18 V; 20 V; 36 V
chuck: 10 mm; 13 mm
kit: bare tool; with 2 batteries; with carry case
+ brushless motor; two-speed gearbox; keyless chuck; built-in work light; 21 torque settings; rubberised handle
~ battery life; grip; torque; chuck; weight; charger
@ hanging shelves; building decks; assembling flat-pack furniture; drilling into masonry

# Home Improvement > Power Tools > Drill Bits | 6-79 | Drills
type: twist bit set; masonry bit set; spade bit set; screwdriver bit set
material: cobalt steel; titanium-coated steel; carbide; high-speed steel
pieces: 10-piece; 21-piece; 45-piece; 100-piece
+ hex shank; laser-etched markings; split-point tip; tough storage case; magnetic holder
~ sharpness; case; durability; markings; tips
@ metal sheets; brick and concrete; hardwood joinery; quick repairs

# Home Improvement > Lighting > Ceiling Lights | 24-310 | Light Bulbs; Ladders
type: flush mount light; pendant light; chandelier; track light
finish: brushed nickel; matte black; antique brass; polished chrome
lights: 1-light; 3-light; 5-light
shade: frosted glass; linen; clear glass; rattan
+ adjustable cable; dimmable fitting; sloped ceiling adapter; hardware included; wipe-clean shade
~ brightness; finish; instructions; shade; installation
@ hallways; dining tables; low ceilings; kitchen islands

# Home Improvement > Lighting > Light Bulbs | 4-45 | Ceiling Lights; Desks
type: LED bulb; filament bulb; smart bulb; floodlight bulb
wattage: 4 W; 9 W; 14 W; 18 W
light colour: warm white; cool white; daylight
base: E27; E14; GU10
pack: 2-pack; 4-pack; 10-pack
+ flicker-free driver; 15,000-hour lifespan; instant start; app control; wide beam angle
~ brightness; colour; lifespan; app; packaging
@ reading corners; bedside lamps; garages; bathrooms

# Home Improvement > Plumbing > Faucets | 35-289 | Paint; Ceiling Lights
type: kitchen faucet; bathroom faucet; shower mixer; bar faucet
finish: brushed nickel; matte black; polished chrome; oil-rubbed bronze
flow: 1.2 gpm; 1.5 gpm; 1.8 gpm
mount: deck mount; wall mount
+ pull-down sprayer; ceramic disc cartridge; drip-free valve; swivel spout; spot-resistant coating
~ water pressure; finish; handle; installation; hose
@ double sinks; guest bathrooms; renovations; utility rooms

# Home Improvement > Paint > Paint | 12-74 | Ladders; Faucets
type: wall paint; exterior paint; wood stain; primer
sheen: flat; eggshell; satin; semi-gloss
colour: chalk white; slate grey; sage green; navy; terracotta
volume: 1 L; 2.5 L; 5 L; 10 L
+ low-odour formula; one-coat coverage; mildew resistance; washable surface; fast-drying base
~ coverage; smell; colour; drying time; lid
@ nurseries; fences; high-traffic hallways; weathered timber

# Home Improvement > Tools > Ladders | 49-340 | Paint; Light Bulbs
type: step ladder; extension ladder; multi-position ladder; step stool
material: aluminium; fibreglass; steel
height: 4 ft; 6 ft; 8 ft; 16 ft
load rating: 225 lb; 250 lb; 300 lb
+ slip-resistant treads; locking hinges; tool tray; non-marking feet; telescopic sections
~ stability; weight; hinges; storage; treads
@ painting ceilings; cleaning gutters; changing bulbs; attic access

# Kitchen > Small Appliances > Blenders | 29-349 | Food Storage; Cookware
type: countertop blender; personal blender; hand blender; smoothie maker
power: 300 W; 600 W; 1000 W; 1400 W
capacity: 0.6 L; 1.5 L; 1.8 L; 2 L
colour: black; red; cream; silver; mint
+ stainless steel blades; pulse function; tamper-proof lid; dishwasher-safe jug; crushed ice programme
~ noise; motor; jug; blades; cleaning
@ green smoothies; soups; baby food; frozen cocktails

# Kitchen > Small Appliances > Coffee Makers | 35-699 | Coffee Beans; Kettles
type: drip coffee maker; espresso machine; pod machine; cold brew maker
capacity: 4 cups; 8 cups; 12 cups
pressure: 9 bar; 15 bar; 19 bar
colour: black; silver; white; copper
+ programmable timer; reusable filter; milk frother; thermal carafe; descaling alert
~ taste; temperature; carafe; water tank; noise
@ early mornings; small offices; flat whites; dinner parties

# Kitchen > Small Appliances > Kettles | 18-139 | Tea; Coffee Makers
type: electric kettle; gooseneck kettle; stovetop kettle; travel kettle
capacity: 0.5 L; 1 L; 1.7 L
material: stainless steel; borosilicate glass; enamelled steel
colour: black; cream; sage; copper
+ boil-dry protection; keep-warm function; temperature control; cordless base; limescale filter
~ speed; lid; spout; handle; noise
@ pour-over coffee; afternoon tea; hotel rooms; shared kitchens

# Kitchen > Cookware > Cookware | 15-219 | Kitchen Knives; Olive Oil
type: frying pan; saucepan; Dutch oven; wok
material: cast iron; stainless steel; hard-anodised aluminium; carbon steel
diameter: 20 cm; 24 cm; 28 cm; 32 cm
colour: black; flame orange; blue; grey
+ induction base; non-stick coating; stay-cool handle; oven-safe lid; pouring lips
~ coating; handle; weight; heat distribution; lid
@ searing steaks; slow stews; omelettes; stir-fries

# Kitchen > Cutlery > Kitchen Knives | 12-249 | Cookware; Food Storage
type: chef's knife; paring knife; bread knife; santoku knife
blade: 3.5 in; 5 in; 7 in; 8 in; 10 in
steel: Damascus steel; German steel; high-carbon steel; ceramic
handle: walnut; pakkawood; resin
+ full tang; hollow-ground edge; double bolster; magnetic sheath; gift box
~ edge; balance; handle; sharpness; box
@ dicing onions; slicing sourdough; filleting fish; peeling fruit

# Kitchen > Storage > Food Storage | 8-69 | Cookware; Pasta
type: storage container set; lunch box; glass jar set; bread bin
material: borosilicate glass; bamboo; polypropylene; stainless steel
pieces: 3-piece; 6-piece; 10-piece; 24-piece
colour: clear; teal; grey; white
+ leakproof lids; airtight seal; microwave-safe base; stackable design; freezer-safe walls
~ lids; seal; size; glass; smell
@ meal prep; packed lunches; leftovers; dry goods

# Garden > Watering > Garden Hoses | 15-119 | Planters; Garden Shears
type: expandable hose; soaker hose; rubber hose; hose reel
length: 25 ft; 50 ft; 75 ft; 100 ft
diameter: 1/2 in; 5/8 in; 3/4 in
colour: green; black; blue
+ brass fittings; kink-resistant core; 10-pattern nozzle; UV-stable jacket; leak-free washers
~ fittings; pressure; nozzle; weight; leaks
@ flower beds; car washing; long lawns; vegetable plots

# Garden > Planting > Planters | 9-149 | Garden Hoses; Garden Shears
type: ceramic planter; raised bed; hanging basket; window box
material: terracotta; cedar; recycled plastic; galvanised steel
size: 6 in; 10 in; 14 in; 24 in
colour: terracotta; white; charcoal; moss green
+ drainage holes; detachable saucer; frost-resistant glaze; self-watering reservoir; hand-finished rim
~ drainage; size; finish; saucer; weight
@ succulents; balconies; herbs; patio roses

# Garden > Lawn > Lawn Mowers | 119-649 | Garden Hoses; Garden Shears
type: cordless mower; push reel mower; robotic mower; electric mower
cutting width: 32 cm; 38 cm; 42 cm; 46 cm
voltage: 18 V; 36 V; 40 V
+ mulching plug; folding handle; 50 L grass box; six cutting heights; quiet brushless motor
~ battery life; cutting height; noise; grass box; wheels
@ small lawns; sloping gardens; uneven ground; striped finishes

# Garden > Hand Tools > Garden Shears | 9-89 | Planters; Lawn Mowers
type: pruning shears; hedge shears; loppers; grass shears
material: carbon steel; stainless steel; titanium-coated steel
length: 8 in; 10 in; 24 in; 32 in
+ sap groove; ratchet mechanism; shock-absorbing bumper; safety lock; ash handles
~ spring; grip; blades; lock; sharpness
@ rose bushes; box hedges; fruit trees; thick branches

# Office > Furniture > Desk Chairs | 69-589 | Desks; Notebooks
type: ergonomic office chair; gaming chair; task chair; executive chair
material: mesh; faux leather; bouclé fabric
colour: black; grey; white; forest green
weight capacity: 110 kg; 135 kg; 150 kg
+ adjustable lumbar support; 4D armrests; tilt lock; class 4 gas lift; headrest pillow
~ lumbar support; armrests; assembly; cushion; wheels
@ home offices; long meetings; back pain; small studies

# Office > Furniture > Desks | 79-699 | Desk Chairs; Monitors
type: standing desk; writing desk; corner desk; folding desk
size: 100 x 60 cm; 120 x 60 cm; 140 x 70 cm; 160 x 80 cm
material: oak veneer; bamboo; engineered wood; tempered glass
colour: walnut; white; black; natural
+ memory presets; cable tray; anti-collision sensor; steel frame; hidden drawer
~ stability; assembly; motor; surface; drawer
@ dual monitors; tight corners; video calls; homework

# Office > Paper > Notebooks | 4-39 | Pens; Desks
type: hardcover notebook; spiral notebook; bullet journal; sketchbook
paper: 80 gsm; 100 gsm; 120 gsm; 160 gsm
ruling: ruled; dotted; plain; squared
size: A4; A5; B5; A6
colour: black; mustard; blush; navy
+ numbered pages; ribbon marker; elastic closure; lay-flat binding; inner pocket
~ paper; binding; cover; bleed-through; ribbon
@ meeting notes; journaling; watercolour; lecture notes

# Office > Writing > Pens | 3-89 | Notebooks; Desks
type: gel pen; fountain pen; ballpoint pen; fineliner
tip: 0.3 mm; 0.5 mm; 0.7 mm; 1.0 mm
ink: black ink; blue ink; assorted ink
pack: 1-pack; 5-pack; 12-pack; 36-pack
+ quick-drying ink; cushioned grip; refillable barrel; metal clip; smudge-proof tip
~ ink; grip; tip; clip; flow
@ left-handed writers; signing documents; sketching; exams
"""
