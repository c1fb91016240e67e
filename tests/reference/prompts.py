"""The prompts of the SmolLM2 references."""


def chat(user, system="You are a helpful AI assistant named SmolLM, trained by Hugging Face"):
    return (f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
            "<|im_start|>assistant\n")


LOGITS = [
    "The",
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    chat("Write one sentence about rivers that bring water to a power station."),
    "Die Würde des Menschen ist unantastbar. 人人生而自由,在尊严和权利上一律平等。 "
    "Все люди рождаются свободными. 🙂 1234567890 3.14159",
    "Water that falls from a height can do work. In a mill it turns a wheel; in a power station it "
    "runs through a steep pipe, the penstock, to a turbine, and the turbine turns a generator. The "
    "pipe has to withstand the pressure of the whole column of water above it, and also the blow "
    "that comes when a valve is shut too quickly. For that reason large plants have a surge tank, "
    "in which the water can rise and",
]

SENTENCES = [
    "Once upon a time, there was a",
    "The sun rises in the",
    "Water boils at a temperature of",
    "The quick brown fox jumps over the lazy",
    "To be, or not to be, that is the",
    "In the beginning God created",
    "The largest planet in our solar system is",
    "Photosynthesis is the process by which",
    "A triangle has three sides and",
    "My favorite season is autumn because",
    "The train left the station at noon, and",
    "She opened the letter and read:",
    "The difference between a virus and a bacterium is",
    "Newton's first law says that",
    "The most important invention of the twentieth century was",
    "He looked at the sky and said",
    "Bread is made from flour, water,",
    "The Roman Empire fell because",
    "An electron has a negative",
    "Dear Sir or Madam,\n\nI am writing to",
    "Breaking news: scientists have discovered",
    "The recipe needs two eggs, a cup of sugar and",
    "Chapter 1\n\nIt was a dark and stormy night;",
    "# Introduction\n\nThis report describes",
    "Q: What is the boiling point of nitrogen?\nA:",
]

CODE = [
    "def factorial(n):\n",
    "import numpy as np\n\ndef softmax(x):\n",
    "for i in range(10):\n    print(",
    "#include <iostream>\n\nint main() {\n",
    "template <typename T>\nT max(T a, T b) {\n    return",
    "SELECT name, COUNT(*) FROM users WHERE",
    "function add(a, b) {\n  return",
    "public class Main {\n    public static void main(String[] args) {\n",
    "fn main() {\n    let mut v = Vec::new();\n",
    "<html>\n<head>\n<title>",
    "#!/bin/bash\nset -euo pipefail\n\nfor file in",
    '{"name": "penstock", "version": "1.0", "dependencies": {',
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "git commit -m",
    "try:\n    f = open('data.txt')\nexcept",
]

CHATS = [
    "What is the capital of Japan?",
    "Write a haiku about the sea.",
    "Explain gravity to a child in two sentences.",
    "Give me three tips for sleeping better.",
    "Translate 'good morning' into French.",
    "What is 17 + 25?",
    "Who wrote Romeo and Juliet?",
    "Write a Python function that reverses a string.",
    "Summarize in one sentence: The cat sat on the mat and watched the rain.",
    "List the primary colors.",
    "Why is the sky blue?",
    "Is a tomato a fruit or a vegetable?",
    "Name a mammal that can fly.",
    "How do I boil an egg?",
    "What does CPU stand for?",
    "Correct the grammar: She don't likes apples.",
    "Suggest a name for a friendly robot.",
    "What is the opposite of 'ancient'?",
    "Tell me a short joke.",
    "How many days are there in a leap year?",
]

LANGUAGES = [
    "Guten Morgen, ich heiße",
    "Der schnelle braune Fuchs springt",
    "Je pense, donc je",
    "Il était une fois une petite fille qui",
    "En un lugar de la Mancha, de cuyo nombre",
    "La capital de España es",
    "Nel mezzo del cammin di nostra vita",
    "O Brasil é um país",
    "Привет, меня зовут",
    "Москва является столицей",
    "今日はとても",
    "我喜欢学习",
    "안녕하세요, 저는",
    "مرحبا، اسمي",
    "शुभ प्रभात, मेरा नाम",
    "Η Αθήνα είναι η πρωτεύουσα",
    "Dzień dobry, nazywam się",
    "Hej, jag heter",
    "Merhaba, benim adım",
    "Xin chào, tôi tên là",
]

NUMBERS = [
    "1, 2, 3, 4, 5,",
    "1 1 2 3 5 8 13 21",
    "2 + 2 = 4\n3 + 3 = 6\n4 + 4 =",
    "100 90 80 70",
    "3.14159265",
    "The year 1969 is known for",
    "In 2024, the population was 8,000,000,",
    "x = 12 * 12 =",
    "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 |",
    "0x1F 0x2A 0xFF",
    "12:00 12:15 12:30",
    "2023-01-01,5.2\n2023-01-02,5.4\n2023-01-03,",
    "A B C D E F",
    "aaaaaaaaaaaaaaaaaaaa",
    "!!! ??? ... ---",
    "    \n\n\t",
    "😀 😃 😄",
    "http://www.",
    "IIIIVVVIVIIVIIIIX",
    "$1.00 + $2.50 =",
]

GREEDY = SENTENCES + CODE + [chat(text) for text in CHATS] + LANGUAGES + NUMBERS
assert len(GREEDY) == len(set(GREEDY)) == 100
